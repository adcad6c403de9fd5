"""A trace of training steps -> how long the GPU stood idle between its kernels, by what the CPU did meanwhile.

A trace is what torch.profiler exports: events with `cat`, `name`, `ts` and `dur` in microseconds. A gap belongs to the
last call on the CPU that began before it ended and lasted into it: a synchronisation, a copy, or an operation that was
still being launched; if there is none, to Python.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

STEPS = 10
SHORTEST_GAP_US = 1.0
WORK = ("kernel", "gpu_memcpy", "gpu_memset")
CALLS = ("cuda_runtime", "cuda_driver", "cpu_op")
WAITING = ("Synchronize", "aten::item", "aten::_local_scalar_dense")


def profile_steps(step: Callable[[], object], device: torch.device, steps: int = STEPS) -> dict[str, Any]:
    """The share of time that the device was idle in `steps` steps, the gaps by cause, and the longest kernels."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(steps):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        profiler.export_chrome_trace(str(Path(folder, "trace.json")))
        events = json.loads(Path(folder, "trace.json").read_text(errors="replace"))["traceEvents"]
    return {"steps": steps, **gaps_by_cause([event for event in events if event.get("ph") == "X"])}


def gaps_by_cause(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Without a GPU the operations of the CPU are the work, and all gaps are Python's."""
    work = sorted((e for e in events if e.get("cat") in WORK), key=_start)
    calls = sorted((e for e in events if e.get("cat") in CALLS), key=_start)
    if not work:
        work, calls = _outermost(calls), []
    gaps: dict[str, list[float]] = defaultdict(list)
    longest: dict[str, float] = defaultdict(float)
    busy_until = _start(work[0]) if work else 0.0
    first, busy = busy_until, 0.0
    for event in work:
        start, end = _start(event), _start(event) + event["dur"]
        longest[str(event["name"])[:100]] += event["dur"]
        if start - busy_until > SHORTEST_GAP_US:
            gaps[_cause(calls, busy_until, start)].append(start - busy_until)
        busy += max(0.0, end - max(start, busy_until))
        busy_until = max(busy_until, end)
    total = busy_until - first
    rows = [{"cause": c, "gaps": len(g), "milliseconds": sum(g) / 1e3, "longest_us": max(g)} for c, g in gaps.items()]
    top = sorted(longest.items(), key=lambda pair: -pair[1])[:10]
    return {
        "milliseconds": total / 1e3,
        "idle_share": 1 - busy / total if total else 0.0,
        "gaps": sorted(rows, key=lambda row: -float(row["milliseconds"]))[:15],
        "longest_work": [{"name": name, "milliseconds": us / 1e3} for name, us in top],
    }


def _outermost(calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    until = float("-inf")
    for event in calls:
        if _start(event) >= until:
            kept.append(event)
            until = _start(event) + event["dur"]
    return kept


def _start(event: dict[str, Any]) -> float:
    return float(event["ts"])


def _cause(calls: Sequence[dict[str, Any]], begin: float, end: float) -> str:
    """What the CPU was in during a gap: a wait for the GPU before all else, else the outermost operation."""
    during = [e for e in _around(calls, begin, end) if _start(e) < end and _start(e) + e["dur"] > begin]
    waits = [e for e in during if any(word in e["name"] for word in WAITING)]
    if waits:
        return f"waits for the GPU: {waits[-1]['name']}"
    operations = [e for e in during if e["cat"] == "cpu_op"]
    if operations:
        return f"launches: {max(operations, key=lambda e: e['dur'])['name']}"
    return f"calls: {during[-1]['name']}" if during else "Python"


def _around(calls: Sequence[dict[str, Any]], begin: float, end: float) -> Sequence[dict[str, Any]]:
    """The calls that began within 50 ms before a gap, or in it; `calls` are in order."""
    from bisect import bisect_left

    return calls[bisect_left(calls, begin - 5e4, key=_start) : bisect_left(calls, end, key=_start)]
