"""scripts/gpu as far as it goes without a GPU: all of its parts, in tiny sizes, and the reading of traces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from resnet_tools.compute.device import kept_settings
from scripts import gpu_adapter as ours
from scripts import gpu_measure, gpu_page, gpu_report
from scripts.gpu_children import ChildFailed, rows_of
from scripts.gpu_profile import gaps_by_cause
from tests.support.fake_gpu import GPU, fake_gpu
from tests.support.small_nets import small_net

ROOT = Path(__file__).parents[2]


def run_script(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    words = [str(ROOT / "scripts" / "gpu"), *map(str, arguments)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=1900, check=False)


@pytest.mark.slow
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
        assert name in names
    assert {"extract-features of JPEGs, single", "classify of JPEGs, single"} <= set(names)
    assert report["tests"]["not_run"] == []
    assert all(row["steady"] > 0 for row in report["rates"] if "JPEGs" in row["name"])
    assert all(row["images_per_second"] > 0 for row in report["rates"])
    assert 0 <= report["profile"]["idle_share"] < 1
    assert report["profile"]["longest_work"]
    assert (tmp_path / "gpu.md").read_text() in done.stdout


def test_a_part_runs_alone(tmp_path):
    done = run_script("--device", "cpu", "--tiny", "--parts", "profile", "--output", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["machine"]["device"] == "cpu"
    assert report["machine"]["cores"] >= 1
    assert report["profile"]["steps"] == 2
    assert "rates" not in report
    assert "tests" not in report


def test_without_a_gpu_it_says_how_to_try_it(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = run_script("--output", tmp_path)
    assert done.returncode == 1
    assert "there is no CUDA GPU for --device cuda; --device cpu --tiny tries the code" in done.stderr
    assert "device 'cuda' is not there; this machine has" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_missing_is_named(monkeypatch, capsys):
    monkeypatch.setattr(gpu_report, "find_spec", lambda name: None if name in ("torchfile", "timm") else object())
    assert gpu_report.provide(None) == ["torchfile", "timm"]
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu"])
    assert gpu_report.main() == 1
    out, err = capsys.readouterr()
    assert "error: missing: torchfile. Install it, or bring its wheel in a folder" in out
    assert "--wheels FOLDER" in out
    assert err == "timm is not installed: what needs it is left out\n"


@pytest.mark.parametrize(("found", "expected"), [("2.5.1", True), ("2.6.0+cu124", False), ("2.14.1", False)])
def test_an_old_torch_is_known(monkeypatch, found, expected):
    monkeypatch.setattr(gpu_report, "version", lambda _: found)
    assert gpu_report.too_old() is expected


def test_every_measurement_that_is_asked_for_is_there():
    asked = {*gpu_report.RATES, "machine", "photos", "profile"}
    assert asked == set(gpu_measure.MEASURES)
    assert set(gpu_report.ONLY_ON_GPUS) < asked


ROWS = """
import json, os, signal, subprocess, sys, time
for number in range(2):
    with open(os.environ["RESNET_TOOLS_ROWS"], "a") as rows:
        print(json.dumps({"number": number}), file=rows)
print("the last words", flush=True)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
with open("child", "w") as file:
    file.write(str(child.pid))
"""


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("sys.exit(0)", None),
        ("sys.exit(3)", "exit code 3; the last words"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV; the last words"),
        ("time.sleep(60)", "took more than 10 seconds; the last words"),
    ],
)
def test_rows_that_were_there_are_kept_whatever_becomes_of_the_process(tmp_path, end, said):
    found, reason = [], None
    try:
        for row in rows_of([sys.executable, "-c", ROWS + end], tmp_path, seconds=60, silence=10):
            found.append(row["number"])
    except ChildFailed as error:
        reason = str(error)
    assert found == [0, 1]
    assert reason == said
    started = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 20
    while is_there(started) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_there(started)


def is_there(pid: int) -> bool:
    """Whether this process is running."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


TESTS = """
import os, signal, time
import pytest
pytestmark = pytest.mark.gpu
def test_first(): pass
def test_crashes(): os.kill(os.getpid(), signal.SIGSEGV)
def test_loses_the_gpu(): raise RuntimeError("CUDA error: an illegal memory access was encountered")
def test_hangs(): time.sleep(60)
@pytest.mark.skip(reason="why")
def test_left_out(): pass
def test_fails(): assert 1 == 2
def test_last(): assert not LOST
LOST = False
"""


def report_of(content, tmp_path, monkeypatch):
    """What the report says of GPU tests with that content, and how many times it was written."""
    (tmp_path / "tests" / "gpu").mkdir(parents=True)
    (tmp_path / "tests" / "gpu" / "test_some.py").write_text(content)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: all")
    monkeypatch.setattr(gpu_report, "_paths", lambda: {"PYTHONPATH": str(ROOT)})
    monkeypatch.setattr(gpu_report, "ROOT", tmp_path)
    report = {}
    children = gpu_report.Children(SimpleNamespace(device="cpu", tiny=True), tmp_path, report, time.monotonic())
    return report, sum(1 for _ in children._tests())


def test_a_test_that_crashes_hangs_or_loses_the_gpu_costs_only_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_report, "TEST_SECONDS", 20)
    monkeypatch.setattr(gpu_report, "CPU_PATIENCE", 1)
    report, steps = report_of(TESTS, tmp_path, monkeypatch)
    found = report["tests"]
    assert (found["passed"], found["skipped"]) == (2, {"test_left_out": "Skipped: why"})
    assert list(found["failed"]) == ["test_crashes", "test_loses_the_gpu", "test_hangs", "test_fails"]
    assert "killed by SIGSEGV" in found["failed"]["test_crashes"]
    assert "took more than 20 seconds" in found["failed"]["test_hangs"]
    assert found["not_run"] == []
    assert "errors" not in report
    assert steps >= 5  # written as it comes


PHASES = """
import pytest
pytestmark = pytest.mark.gpu
@pytest.fixture
def not_torn_down():
    yield
    raise RuntimeError("in the teardown")
@pytest.fixture
def not_set_up(): raise RuntimeError("in the setup")
def test_passes(): pass
def test_passes_but_for_its_teardown(not_torn_down): pass
def test_fails_also_in_its_teardown(not_torn_down): assert 1 == 2
def test_is_skipped_but_for_its_teardown(not_torn_down): pytest.skip("why")
def test_fails_before_it_begins(not_set_up): pass
"""


def test_a_test_counts_once_by_the_worst_of_its_phases(tmp_path, monkeypatch):
    report, _ = report_of(PHASES, tmp_path, monkeypatch)
    found = report["tests"]
    assert (found["passed"], found["skipped"], found["not_run"]) == (1, {}, [])
    said = {
        "test_passes_but_for_its_teardown": "in the teardown",
        "test_fails_also_in_its_teardown": "assert 1 == 2",
        "test_is_skipped_but_for_its_teardown": "in the teardown",
        "test_fails_before_it_begins": "in the setup",
    }
    assert list(found["failed"]) == list(said)
    assert [name for name, words in said.items() if words not in found["failed"][name]] == []


@pytest.mark.parametrize(("content", "said"), [("import nosuchmodule", "exit code"), ("", "tests: none was found")])
def test_tests_that_cannot_even_be_collected_are_an_error(tmp_path, monkeypatch, content, said):
    report, _ = report_of(content, tmp_path, monkeypatch)
    assert report["tests"]["passed"] == 0
    assert any(said in error for error in report["errors"]), report


def test_what_there_is_no_time_for_is_named(tmp_path):
    report = {"machine": {}}
    began = time.monotonic() - gpu_report.CPU_PATIENCE * gpu_report.BUDGET_SECONDS
    children = gpu_report.Children(SimpleNamespace(device="cpu", tiny=True), tmp_path, report, began)
    assert list(children._profile()) == []
    assert report["errors"] == ["profile: left out, no time"]


def test_ratios_compare_what_is_steady():
    rates = {"our step, eager": 2000.0, "our training from JPEGs": 1800.0, "our step, eager, with mixup": 1.0}
    (row,) = [line for line in gpu_page.ratios(rates) if "JPEGs" in line]
    assert row == "| our training from JPEGs : our step, eager | 0.90 | 0.95 **missed** |"


@pytest.mark.skipif(torch.__version__ < "2.7", reason="torch 2.6 asks the driver to change a made-up tensor's layout")
def test_our_step_is_measured_on_the_gpu_that_is_named(monkeypatch):
    with monkeypatch.context() as one_gpu:
        one_gpu.setattr(torch.cuda, "is_available", lambda: True)
        one_gpu.setattr(torch.cuda, "device_count", lambda: 1)
        device = ours.device_named("cuda")
    net = small_net()
    with kept_settings(), fake_gpu() as waits:
        training = ours.Training(net, device, name="modern", mixup=0.0, cutmix=0.0)
        images, targets = torch.empty(8, 3, 32, 32, device=GPU), torch.zeros(8, dtype=torch.int64, device=GPU)
        del waits[:]
        counts = training(images, targets)
    assert training.precision == "bf16"
    assert counts.values.device == GPU
    assert waits == []


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
