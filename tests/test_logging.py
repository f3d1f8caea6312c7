"""``ipyrunner.LogHandler``: records go where prints go."""

from __future__ import annotations

import io
import logging
import logging.config
import subprocess
import sys

import pytest

import ipyrunner
from kernels import Kernel

SETUP = (
    "import logging, ipyrunner\nlogging.basicConfig(handlers=[ipyrunner.LogHandler()], format='%(message)s')\n"
    "go = asyncio.Event()\nasync def work():\n    await go.wait()\n    logging.warning('from the task')"
)


def test_what_a_task_logs_goes_to_the_cell_that_started_it(fresh: Kernel) -> None:
    fresh.ok(SETUP)
    first = fresh.ok("task = asyncio.create_task(work())")
    second = fresh.ok("logging.warning('before'); go.set(); await task; logging.warning('after')")
    fresh.wait_until(lambda: first.stderr == "from the task\n")
    fresh.wait_until(lambda: second.stderr == "before\nafter\n")


def test_where_nobody_watches_it_goes_to_the_cell_that_runs(fresh: Kernel) -> None:
    fresh.ok(SETUP)
    fresh.run("task = asyncio.create_task(work())", allow_stdin=False)
    second = fresh.run("go.set(); await task", allow_stdin=False)
    fresh.wait_until(lambda: second.stderr == "from the task\n")


def test_what_a_thread_of_a_cell_logs_goes_to_that_cell(fresh: Kernel) -> None:
    fresh.ok(
        f"{SETUP}\nimport threading\ngo = threading.Event()\ndef work():\n    go.wait()\n    logging.warning('there')"
    )
    first = fresh.ok("task = asyncio.create_task(asyncio.to_thread(work)); await asyncio.sleep(0)")
    second = fresh.ok("go.set(); await task")
    fresh.wait_until(lambda: first.stderr == "there\n")
    assert second.stderr == ""


@pytest.mark.parametrize("with_extension", [True, False])
def test_it_outlives_the_cell_that_captures_its_stderr(
    fresh: Kernel, with_extension: bool, request: pytest.FixtureRequest
) -> None:
    k = fresh if with_extension else request.getfixturevalue("stock")
    k.ok("import asyncio")
    k.ok(f"%%capture\n{SETUP}")
    cell = k.ok("logging.warning('seen')")
    k.wait_until(lambda: cell.stderr == "seen\n")


@pytest.fixture
def log() -> logging.Logger:
    """One that has no parents, and so none of pytest's handlers."""
    log = logging.Logger("test")
    log.addHandler(ipyrunner.LogHandler())
    return log


def test_a_record_is_one_write_and_no_wait(log: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        writes: list[str] = []

        def write(self, text: str) -> None:
            self.writes.append(text)

        def flush(self) -> None:
            pytest.fail("waits until what is written has been sent")

    monkeypatch.setattr(sys, "stderr", Stream())
    log.warning("a %s", "record")
    assert Stream.writes == ["a record\n"]


def test_a_record_that_cannot_be_formatted_is_reported(log: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    log.warning("%d", "no number")
    assert "--- Logging error ---" in sys.stderr.getvalue()  # type: ignore[attr-defined]


def test_no_stderr_is_no_error(log: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)  # as pythonw has it
    log.warning("unseen")
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log.warning("seen")
    assert stream.getvalue() == "seen\n"


def test_dict_config_finds_it() -> None:
    handlers = {"cells": {"class": "ipyrunner.LogHandler"}}
    loggers = {__name__: {"handlers": ["cells"]}}
    logging.config.dictConfig(
        {"version": 1, "handlers": handlers, "loggers": loggers, "disable_existing_loggers": False}
    )
    log = logging.getLogger(__name__)
    assert [type(handler) for handler in log.handlers] == [ipyrunner.LogHandler]
    log.handlers.clear()


def test_it_needs_no_ipython() -> None:
    code = "import sys, ipyrunner; ipyrunner.LogHandler(); sys.exit('IPython' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
