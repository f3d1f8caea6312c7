# make demo: run notebooks/quickstart.ipynb on a real kernel. make check: format, lint, types.
# make test: the tests, without those that are marked slow. make test-all: all of them; it first installs Chromium and Xvfb.
# make docs: the documentation site, in docs/_build/html; the tutorial is executed by a real kernel.
# make bench: speed, against plain asyncio and the stock kernel (ARGS=--quick: in two minutes). make soak: thousands of random interrupts.
# make package: sdist and wheel in dist/, checked; the demo again, with the wheel in an environment of its own.
# All of them share one virtual environment, made on first use. Another Python: make test PYTHON=python3.13 VENV=.venv-3.13

PYTHON ?= python3
VENV ?= .venv
# The dependency group that the tests run with: test, base (no front ends) or oldest (base with the oldest versions).
GROUP ?= test
# For pytest, of all tests: make test ARGS='-k interrupts'. Without, those that SELECT selects.
ARGS ?=
SELECT ?= -m 'not slow'
# Tests that run at a time: they wait half of their time. WORKERS=0: one after the other, in one process.
WORKERS ?= $(shell expr 2 '*' "$$(getconf _NPROCESSORS_ONLN)")
BIN := $(VENV)/bin
TAKES_demo := about a minute
TAKES_test := about four minutes on two cores

.PHONY: demo test test-all check docs bench soak package clean

demo: $(VENV)/installed-demo
	@echo "==> executing notebooks/quickstart.ipynb on a real kernel (a few seconds)"
	@$(BIN)/python notebooks/run.py notebooks/quickstart.ipynb --next "Now try it yourself: $(BIN)/pip install jupyterlab, then $(BIN)/jupyter lab docs/tutorial.ipynb, and choose the kernel Python 3 (ipyrunner)."

test: $(VENV)/installed-$(GROUP)
	@echo "==> running the tests on $$($(BIN)/python -V) with $$($(BIN)/python -c 'import ipykernel, IPython; print("ipykernel", ipykernel.__version__, "and IPython", IPython.__version__)'), $(WORKERS) at a time ($(TAKES_test))"
	@TEST_GROUP=$(GROUP) $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 16 --dist worksteal $(or $(ARGS),$(SELECT))

# On each loop, in JupyterLab, with everything that takes long. Chromium and Xvfb are installed by apt-get (as root).
test-all:
	@tests/programs.sh
	@$(MAKE) --no-print-directory test SELECT= TAKES_test="about fifteen minutes on two cores"

check: $(VENV)/installed-check
	@echo "==> format, lint and types"
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

docs: $(VENV)/installed-docs
	@echo "==> building docs/_build/html, with the tutorial executed by a real kernel"
	@$(BIN)/python -m sphinx -W --keep-going -E -q -b html docs docs/_build/html
	@echo "==> docs/_build/html/index.html"

bench: $(VENV)/installed-test
	@echo "==> measuring against plain asyncio and the stock kernel"
	@$(BIN)/python benchmarks/run.py $(ARGS)

# 2000 rounds on each loop, and with nest_asyncio; ROUNDS=... and SEED=... for others.
soak: $(VENV)/installed-$(GROUP)
	@echo "==> random interrupts into every kind of cell, on each loop, and into cells side by side (about an hour)"
	@$(BIN)/python tests/soak.py --rounds $(or $(ROUNDS),2000) $(if $(SEED),--seed $(SEED))
	@$(BIN)/python tests/soak_concurrent.py --rounds $(or $(ROUNDS),2000) $(if $(SEED),--seed $(SEED))

package: $(VENV)/installed-package
	@echo "==> building and checking dist/"
	@rm -rf dist
	@$(BIN)/python -m build
	@$(BIN)/twine check --strict dist/*
	@$(BIN)/check-wheel-contents dist/*.whl
	@echo "==> executing notebooks/quickstart.ipynb with the wheel, in $(VENV)-wheel"
	@$(BIN)/python -m venv --clear $(VENV)-wheel
	@$(VENV)-wheel/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(VENV)-wheel/bin/python -m pip install --quiet dist/*.whl --group demo
	@$(VENV)-wheel/bin/python notebooks/run.py notebooks/quickstart.ipynb

$(VENV)/installed-%: pyproject.toml | $(BIN)/python
	@echo "==> installing ipyrunner and what '$*' needs into $(VENV) ($(or $(TAKES_$*),about three minutes))"
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --editable . --group $*
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"ipyrunner needs Python 3.11 or later, and {sys.executable} is {v[0]}.{v[1]}: call make with PYTHON=python3.13, say")'
	@echo "==> making a virtual environment of $$($(PYTHON) -V) in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) $(VENV)-wheel dist
