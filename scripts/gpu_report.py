"""scripts/gpu: tests, rates and a profile on a GPU, without a network, into gpu.md and gpu.json.

Only the standard library is imported here: all else happens in processes of their own, one for each measurement, so
that what crashes, hangs or runs out of memory costs nothing but itself. The files are written again after each row.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import invalidate_caches
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scripts.gpu_children import ChildFailed, rows_of
from scripts.gpu_page import markdown

ROOT = Path(__file__).parents[1]
NEEDED = {  # module -> package
    "torch": "torch",
    "numpy": "numpy",
    "PIL": "pillow",
    "click": "click",
    "torchfile": "torchfile",
    "safetensors": "safetensors",
    "filelock": "filelock",
}
USEFUL = {"pytest": "pytest", "torchvision": "torchvision", "timm": "timm", "simplejpeg": "simplejpeg"}
BUDGET_SECONDS = 470  # in all; what is not begun by then is left out
MACHINE_SECONDS = 90  # a driver may take long to start
TESTS_SECONDS, TEST_SECONDS = 190, 90  # all, and one: a compiler is part of one
RATES = {  # what scripts.gpu_measure measures -> seconds that it may take; the quick ones first
    "our step, eager": 60,
    "torchvision's reference loop, AMP": 60,
    "timm's loop, AMP, channels last": 60,
    "our training from JPEGs": 90,
    "inference, single": 90,
    "inference, bf16": 60,
    "features of JPEGs by timm and its loader, bf16": 60,
    "our step, compiled": 150,
    "the best hand-tuned loop": 150,
    "our step, eager, with mixup, CutMix and EMA": 60,
    "inference, tf32": 45,
    "inference, half": 45,
    "graphs": 45,
}
ONLY_ON_GPUS = ("inference, tf32", "inference, half", "inference, bf16", "graphs")
PROFILE_SECONDS = 60
CPU_PATIENCE = 4  # times as long: the limits are for those who have a GPU for ten minutes
PARTS = ("tests", "profile", "rates")  # the longest last: its last rows may find no time


def main() -> int:
    options = parsed()
    missing = provide(options.wheels)
    for name in missing:
        if name in USEFUL.values():
            print(f"{name} is not installed: what needs it is left out", file=sys.stderr)
    needed = [name for name in missing if name in NEEDED.values()]
    if needed or too_old():
        print(
            f"error: missing: {', '.join(needed) or 'torch 2.6 or newer'}. Install it, or bring its wheel in a folder,"
        )
        print("made by `pip wheel --no-deps -w FOLDER NAME ...` where there is a network: scripts/gpu --wheels FOLDER")
        return 1
    if options.device == "cpu":
        os.environ["TORCHDYNAMO_DISABLE"] = "1"  # a compiler takes longer than all else
    options.output.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"machine": {}, "missing": missing, "tiny": options.tiny}
    with tempfile.TemporaryDirectory() as folder:
        children = Children(options, Path(folder), report, time.monotonic())
        for _ in children.run(options.parts):  # written again after each row: a cut run keeps what it has
            write(report, options.output, time.monotonic() - children.started)
    write(report, options.output, time.monotonic() - children.started)
    print((options.output / "gpu.md").read_text())
    return 1 if report.get("errors") or report.get("tests", {}).get("failed") else 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu")
    parser.add_argument("--tiny", action="store_true", help="sizes that only try the code")
    parser.add_argument("--wheels", type=Path, help="a folder with wheels of packages that are not installed")
    parser.add_argument("--output", type=Path, default=Path(), help="where gpu.md and gpu.json are written")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    return parser.parse_args()


def provide(wheels: Path | None) -> list[str]:
    """Install what is missing from a folder into one beside the package, for this run; what is missing still."""
    wanted = NEEDED | USEFUL
    if wheels is not None:
        target = ROOT / "build" / "wheels"
        for name in [package for module, package in wanted.items() if find_spec(module) is None]:
            words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", wheels]
            errors: list[str] = []
            # What it needs may be here, but not in the folder; a .tar.gz needs setuptools, which may be here too.
            for more in ([], ["--no-deps"], ["--no-deps", "--no-build-isolation"]):
                arguments = [*words, *more, "--target", target, name]
                done = subprocess.run(arguments, capture_output=True, text=True, check=False)
                errors += [line.strip() for line in done.stderr.splitlines() if "error" in line.lower()]
                if not done.returncode:
                    break
            else:
                print(f"{name}: {errors[0] if errors else 'pip failed'}", file=sys.stderr)
        sys.path.append(str(target))
        invalidate_caches()
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(target)]))
    return [package for module, package in wanted.items() if find_spec(module) is None]


def too_old() -> bool:
    try:
        major, minor = version("torch").split(".")[:2]
    except PackageNotFoundError:
        return True
    return (int(major), int(minor)) < (2, 6)


class Children:
    """The parts, each in processes of its own; what they find is put into `report`, and what becomes of them."""

    def __init__(self, options: argparse.Namespace, folder: Path, report: dict[str, Any], started: float) -> None:
        self.options, self.folder, self.report, self.started = options, folder, report, started
        self.patience = CPU_PATIENCE if options.device == "cpu" else 1

    def run(self, parts: Sequence[str]) -> Iterator[None]:
        """Something is new in the report whenever this yields."""
        for row in self._measured("machine", MACHINE_SECONDS):
            self.report["machine"] = row
            yield
        if "gpu" not in self.report["machine"] and self.options.device != "cpu":
            reason = " ".join(self.report.get("errors", []))
            raise SystemExit(
                f"error: there is no CUDA GPU for --device {self.options.device}; --device cpu --tiny tries the code. "
                f"{reason}"
            )
        kinds: dict[str, Callable[[], Iterator[None]]] = {
            "tests": self._tests,
            "rates": self._rates,
            "profile": self._profile,
        }
        for part in parts:
            yield from kinds[part]()

    def _tests(self) -> Iterator[None]:
        """`pytest -m gpu`; after a test that takes its process with it, another process runs the rest."""
        if find_spec("pytest") is None:
            return
        found: dict[str, Any] = {"passed": 0, "skipped": {}, "failed": {}, "not_run": []}
        self.report["tests"], collected, done = found, [], []
        words = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "-W", "default"]
        words += ["-p", "scripts.gpu_results", "tests/gpu"]
        deadline, finished = time.monotonic() + min(self.patience * TESTS_SECONDS, self._left()), False
        while not finished:
            running, before = "", len(done)
            variables = {"RESNET_TOOLS_TESTED": json.dumps(done), "RESNET_TOOLS_TEST_DEVICE": self.options.device}
            variables |= _paths()
            try:
                limit = max(1.0, deadline - time.monotonic())
                for row in rows_of(words, ROOT, seconds=limit, silence=self.patience * TEST_SECONDS, **variables):
                    collected = collected or row.get("collected", [])
                    finished = finished or "finished" in row
                    running = row.get("begun", "" if "ended" in row else running)
                    if "ended" in row:
                        done.append(row["ended"])
                        _note_test(found, row)
                        yield
            except ChildFailed as error:
                if running:
                    done.append(running)
                    found["failed"][_test_name(running)] = f"its process: {error}"
                if not finished and (len(done) == before or time.monotonic() > deadline):
                    self._failed("tests", str(error))
                    break
        if not collected and not self.report.get("errors"):
            self._failed("tests", "none was found")
        found["not_run"] = [_test_name(name) for name in collected if name not in done]
        yield

    def _rates(self) -> Iterator[None]:
        rows: list[dict[str, Any]] = self.report.setdefault("rates", [])
        yield from (None for _ in self._measured("photos", 120))
        for name, seconds in RATES.items():
            if self.options.device != "cpu" or name not in ONLY_ON_GPUS:
                for row in self._measured(name, seconds):
                    rows.append(row)
                    yield

    def _profile(self) -> Iterator[None]:
        for row in self._measured("profile", PROFILE_SECONDS):
            self.report["profile"] = row
            yield

    def _measured(self, name: str, seconds: float) -> Iterator[dict[str, Any]]:
        if self._left() < 1:
            self._failed(name, "left out, no time")
            return
        words = [sys.executable, "-m", "scripts.gpu_measure", name, "--device", self.options.device]
        words += ["--folder", str(self.folder), *(["--tiny"] if self.options.tiny else [])]
        try:
            yield from rows_of(words, ROOT, seconds=min(self.patience * seconds, self._left()), **_paths())
        except ChildFailed as error:  # the other figures are wanted all the same
            self._failed(name, str(error))

    def _left(self) -> float:
        return self.started + self.patience * BUDGET_SECONDS - time.monotonic()

    def _failed(self, name: str, reason: str) -> None:
        self.report.setdefault("errors", []).append(f"{name}: {reason}")


def _paths() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def _note_test(found: dict[str, Any], row: dict[str, Any]) -> None:
    if row["outcome"] == "passed":
        found["passed"] += 1
    else:
        found[row["outcome"]][_test_name(row["ended"])] = row["text"]


def _test_name(node: str) -> str:
    return node.rpartition("::")[2]


def write(report: dict[str, Any], folder: Path, seconds: float) -> None:
    report["seconds"] = round(seconds, 1)
    (folder / "gpu.json").write_text(json.dumps(report, indent=1))
    (folder / "gpu.md").write_text("\n".join(markdown(report)) + "\n")


if __name__ == "__main__":
    sys.exit(main())
