"""CPython's own test suite for runners, with ``ipyrunner.Runner`` and ``ipyrunner.run`` in asyncio's place."""

from __future__ import annotations

import asyncio
import importlib
import sys
import unittest
import warnings

import pytest

import ipyrunner

# What Python 3.14 changed: before it only coroutines were taken. tests/test_runner.py holds the new behaviour.
CHANGED = (
    set() if sys.version_info >= (3, 14) else {"test_asyncio_run_only_coro", "test_run_non_coro", "test_run_future"}
)


def load() -> list[unittest.TestCase]:
    try:
        # -W error: 3.12 to 3.14 deprecate one or the other name that the suite itself uses.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            module = importlib.import_module("test.test_asyncio.test_runners")
    except ImportError:
        return []
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    return [case for group in suite for case in group if case._testMethodName not in CHANGED]


CASES = load()


@pytest.mark.skipif(not CASES, reason="this Python comes without its test suite (Debian: libpython3-testsuite)")
def test_the_suite_is_there() -> None:
    assert len(CASES) > 20


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case._testMethodName)
def test_cpython(case: unittest.TestCase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "Runner", ipyrunner.Runner)
    monkeypatch.setattr(asyncio, "run", ipyrunner.run)
    result = unittest.TestResult()
    case.run(result)
    for _, text in [*result.errors, *result.failures]:
        pytest.fail(text)
    assert result.testsRun == 1
