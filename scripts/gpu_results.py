"""A plugin of pytest: each test as a row when it begins and when it has ended; see scripts.gpu_children.

A test has one outcome, the worst of its phases: setup, call and teardown.
Tests that $RESNET_TOOLS_TESTED names are left out: an earlier process has run them. After a lost GPU nothing computes
in the same process any more, so it ends, and the caller starts another one for the rest.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

SHOWN_CHARACTERS = 1500
BEST_FIRST = ("passed", "skipped", "failed")
LOST_GPU = ("CUDA error", "CUDNN_STATUS_EXECUTION_FAILED", "device-side assert")

_phases: dict[str, list[tuple[str, str]]] = {}  # of the test that runs: outcomes and texts


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    done = json.loads(os.environ.get("RESNET_TOOLS_TESTED", "[]"))
    items[:] = [item for item in items if item.nodeid not in done]


def pytest_collection_finish(session: pytest.Session) -> None:
    _write({"collected": [item.nodeid for item in session.items]})


def pytest_runtest_logstart(nodeid: str) -> None:
    _write({"begun": nodeid})


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr or "")
    is_lost = report.failed and any(words in text for words in LOST_GPU) and "out of memory" not in text
    phases = _phases.setdefault(report.nodeid, [])
    phases.append((report.outcome, text[-SHOWN_CHARACTERS:]))
    if report.when == "teardown" or is_lost:
        outcome, text = max(_phases.pop(report.nodeid), key=lambda phase: BEST_FIRST.index(phase[0]))
        _write({"ended": report.nodeid, "outcome": outcome, "text": text})
    if is_lost:
        os._exit(1)


def pytest_sessionfinish(exitstatus: int) -> None:
    if exitstatus in (0, 1, 5):  # passed, failed, or none were left; otherwise pytest itself could not go on
        _write({"finished": True})


def _write(row: dict[str, Any]) -> None:
    with Path(os.environ["RESNET_TOOLS_ROWS"]).open("a") as rows:
        print(json.dumps(row), file=rows, flush=True)
