"""scripts/gpu as far as it goes without a GPU: all of its parts, in tiny sizes, and the reading of traces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import gpu_report
from scripts.gpu_profile import gaps_by_cause

ROOT = Path(__file__).parents[2]


def run_script(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    words = [str(ROOT / "scripts" / "gpu"), *map(str, arguments)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=500, check=False)


def test_all_parts_run_on_the_cpu_in_tiny_sizes(tmp_path):
    done = run_script("--device", "cpu", "--tiny", "--output", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert "errors" not in report
    assert report["tests"]["passed"] > 80
    assert report["tests"]["failed"] == {}
    names = [row["name"] for row in report["rates"]]
    for name in (
        "our step, eager",
        "our step, compiled",
        "torchvision's reference loop, AMP",
        "our training from JPEGs",
    ):
        assert any(found.startswith(name) for found in names), name
    assert {"extract-features of JPEGs, single", "classify of JPEGs, single"} <= set(names)
    assert all(row["images_per_second"] > 0 for row in report["rates"])
    assert 0 <= report["profile"]["idle_share"] < 1
    assert report["profile"]["longest_work"]
    assert (tmp_path / "gpu.md").read_text() in done.stdout


def test_without_a_gpu_it_says_how_to_try_it(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = run_script("--output", tmp_path)
    assert done.returncode == 1
    assert "there is no CUDA GPU for --device cuda; --device cpu --tiny tries the code" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_missing_is_named(monkeypatch, capsys):
    monkeypatch.setattr(gpu_report, "find_spec", lambda name: None if name in ("torchfile", "timm") else object())
    assert gpu_report.provide(None) == ["torchfile", "timm"]
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu"])
    assert gpu_report.main() == 1
    assert "error: missing: torchfile, timm" in (out := capsys.readouterr().out)
    assert "--wheels FOLDER" in out


@pytest.mark.parametrize(("found", "expected"), [("2.5.1", True), ("2.6.0+cu124", False), ("2.14.1", False)])
def test_an_old_torch_is_known(monkeypatch, found, expected):
    monkeypatch.setattr(gpu_report, "version", lambda _: found)
    assert gpu_report.too_old() is expected


def event(kind: str, name: str, start: float, length: float) -> dict[str, object]:
    return {"ph": "X", "cat": kind, "name": name, "ts": start, "dur": length}


def test_gaps_between_kernels_have_causes():
    trace = [
        event("kernel", "first", 0, 100),
        event("kernel", "beside", 50, 20),  # within the first: no gap
        event("cpu_op", "aten::item", 90, 60),
        event("cuda_runtime", "cudaStreamSynchronize", 100, 45),
        event("kernel", "second", 150, 50),  # after 50 us, in which the CPU waited
        event("cpu_op", "aten::conv2d", 195, 30),
        event("cpu_op", "aten::cudnn_convolution", 200, 20),
        event("kernel", "third", 220, 80),  # after 20 us, in which it was launched
        event("gpu_memcpy", "copy", 400, 100),  # after 100 us, in which nothing was called
        event("kernel", "near", 500.5, 9.5),  # after less than a microsecond
    ]
    found = gaps_by_cause(trace)
    causes = {row["cause"]: (row["gaps"], row["milliseconds"]) for row in found["gaps"]}
    assert causes == {
        "waits for the GPU: cudaStreamSynchronize": (1, 0.05),
        "launches: aten::conv2d": (1, 0.02),
        "Python": (1, 0.1),
    }
    # busy: 100 + 50 + 80 + 100 + 9.5 of 510 microseconds
    assert found["idle_share"] == pytest.approx(1 - 339.5 / 510)
    assert found["longest_work"][0] == {"name": "first", "milliseconds": 0.1}


def test_a_trace_without_events_has_no_gaps():
    assert gaps_by_cause([])["gaps"] == []
