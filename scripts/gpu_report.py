"""scripts/gpu: tests, rates and a profile on a GPU, without a network, into gpu.md and gpu.json.

Only the standard library is imported until it is known that the rest is there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from importlib import invalidate_caches
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NEEDED = {"torch": "torch", "numpy": "numpy", "PIL": "pillow", "click": "click", "torchfile": "torchfile"}
NEEDED |= {"safetensors": "safetensors"}
USEFUL = {"pytest": "pytest", "torchvision": "torchvision", "timm": "timm"}
USEFUL |= {"simplejpeg": "simplejpeg"}
PARTS = ("tests", "rates", "profile")
BUDGET_SECONDS = 450  # what is not begun by then is left out
TESTS_SECONDS = 200


def main() -> int:
    options = parsed()
    missing = provide(options.wheels)
    if any(name in NEEDED.values() for name in missing) or too_old():
        print(f"error: missing: {', '.join(missing)}; torch must be 2.6 or newer. Install them, or bring their wheels")
        print("in a folder: scripts/gpu --wheels FOLDER")
        return 1
    for name in missing:
        print(f"{name} is not installed: what needs it is left out", file=sys.stderr)
    if options.device == "cpu":
        os.environ["TORCHDYNAMO_DISABLE"] = "1"  # a compiler takes longer than all else
    options.output.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"machine": machine(options.device), "missing": missing, "tiny": options.tiny}
    started = time.monotonic()
    for part in options.parts:
        for _ in WORK[part](options, report, started):  # written again after each row: a cut run keeps what it has
            write(report, options.output, time.monotonic() - started)
    write(report, options.output, time.monotonic() - started)
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
            for more in ([], ["--no-deps"]):  # what it needs may be here, but not in the folder
                arguments = [*words, *more, "--target", target, name]
                done = subprocess.run(arguments, capture_output=True, text=True, check=False)
                if not done.returncode:
                    break
            else:
                print(f"{name}: {(done.stderr.strip().splitlines() or ['pip failed'])[-1]}", file=sys.stderr)
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


def machine(device: str) -> dict[str, Any]:
    import torch

    found = {name: version(name) for name in ("torch", "numpy", "pillow") if find_spec(name) or name == "pillow"}
    about: dict[str, Any] = {"python": platform.python_version(), "device": device, **found}
    about |= {"torchvision": version("torchvision")} if find_spec("torchvision") else {}
    about |= {"cores": os.cpu_count(), "cuda": torch.version.cuda, "gpus": torch.cuda.device_count()}
    if torch.cuda.is_available():
        about["gpu"] = torch.cuda.get_device_name(device if device.startswith("cuda") else 0)
        about["cudnn"] = torch.backends.cudnn.version()
        about["bf16"] = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device != "cpu":
        raise SystemExit(f"error: there is no CUDA GPU for --device {device}; --device cpu --tiny tries the code")
    return about


def run_tests(options: argparse.Namespace, report: dict[str, Any], _: float) -> Iterator[None]:
    """`pytest -m gpu` in a process of its own."""
    if find_spec("pytest") is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "tests.xml")
        words = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={result}"]
        environment = {**os.environ, "RESNET_TOOLS_TEST_DEVICE": options.device}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        try:
            done = subprocess.run(
                [*words, "tests/gpu"], cwd=ROOT, env=environment, capture_output=True, text=True,
                timeout=TESTS_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            report.setdefault("errors", []).append(f"the tests took more than {TESTS_SECONDS} seconds")
            yield
            return
        # What our own pytest wrote a moment ago.
        cases = list(ElementTree.parse(result).iter("testcase")) if result.exists() else []  # noqa: S314
    if not cases:
        report.setdefault("errors", []).append(f"no test ran: {(done.stdout + done.stderr)[-1500:]}")
    report["tests"] = {
        "passed": sum(not list(case) for case in cases),
        "skipped": {case.get("name"): e.get("message") for case in cases for e in case.iter("skipped")},
        "failed": {
            c.get("name"): (e.text or "")[-1500:] for c in cases for e in (*c.iter("failure"), *c.iter("error"))
        },
    }
    yield


def measure_rates(options: argparse.Namespace, report: dict[str, Any], started: float) -> Iterator[None]:
    import torch

    from scripts import gpu_rates

    sizes = gpu_rates.TINY if options.tiny else gpu_rates.FULL
    bench = gpu_rates.Bench(torch.device(options.device), sizes)
    rows: list[dict[str, Any]] = report.setdefault("rates", [])
    with tempfile.TemporaryDirectory() as folder:
        kinds: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
            "training on synthetic data": lambda: gpu_rates.training_rates(bench),
            "training from JPEGs": lambda: gpu_rates.jpeg_training_rate(bench, paths),
            "inference": lambda: gpu_rates.inference_rates(bench, paths, Path(folder)),
            "graphs": lambda: gpu_rates.graph_rates(bench),
        }
        paths = gpu_rates.jpegs(Path(folder), sizes)
        for name, kind in kinds.items():
            if time.monotonic() - started > BUDGET_SECONDS:
                report.setdefault("errors", []).append(f"{name}: left out, no time")
                continue
            try:
                for row in kind():
                    rows.append(row)
                    yield
            except Exception:  # the other figures are wanted all the same
                report.setdefault("errors", []).append(f"{name}: {traceback.format_exc()[-1500:]}")


def profile(options: argparse.Namespace, report: dict[str, Any], started: float) -> Iterator[None]:
    import torch

    from scripts import gpu_profile, gpu_rates

    if time.monotonic() - started > BUDGET_SECONDS:
        report.setdefault("errors", []).append("profile: left out, no time")
        return
    bench = gpu_rates.Bench(torch.device(options.device), gpu_rates.TINY if options.tiny else gpu_rates.FULL)
    try:
        step, (images, targets) = gpu_rates.our_training(bench), bench.batch()
        for _ in range(bench.sizes.warm_up):
            step(images, targets)
        bench.synchronize()
        steps = gpu_profile.STEPS if not options.tiny else 2
        report["profile"] = gpu_profile.profile_steps(lambda: step(images, targets), bench.device, steps)
    except Exception:
        report.setdefault("errors", []).append(f"profile: {traceback.format_exc()[-1500:]}")
    yield


WORK = {"tests": run_tests, "rates": measure_rates, "profile": profile}


def write(report: dict[str, Any], folder: Path, seconds: float) -> None:
    report["seconds"] = round(seconds, 1)
    (folder / "gpu.json").write_text(json.dumps(report, indent=1))
    (folder / "gpu.md").write_text("\n".join(markdown(report)) + "\n")


def markdown(report: dict[str, Any]) -> Iterator[str]:
    about = report["machine"]
    yield f"# {about.get('gpu', 'CPU')}, torch {about['torch']}, {report['seconds']:.0f} s"
    yield "\n" + ", ".join(f"{name} {value}" for name, value in about.items() if value is not None)
    if report["tiny"]:
        yield "\nTiny sizes: this only tries the code, the figures say nothing."
    if report["missing"]:
        yield f"\nNot installed, and left out: {', '.join(report['missing'])}."
    for error in report.get("errors", []):
        yield f"\n**error** {error}"
    if "tests" in report:
        tests = report["tests"]
        yield f"\n## Tests\n\n{tests['passed']} passed, {len(tests['failed'])} failed, {len(tests['skipped'])} skipped."
        for name, text in tests["failed"].items():
            yield f"\n### {name}\n\n```\n{text}\n```"
        for name, reason in tests["skipped"].items():
            yield f"- skipped {name}: {reason}"
    if report.get("rates"):
        yield "\n## Rates\n\n| what | images/s | ms | peak GB | waits |\n|---|---|---|---|---|"
        yield from map(rate_line, report["rates"])
        yield from () if report["tiny"] else ratios({row["name"]: row["images_per_second"] for row in report["rates"]})
    if "profile" in report:
        yield from profile_lines(report["profile"])


def rate_line(row: dict[str, Any]) -> str:
    peak = "" if row.get("peak_gb") is None else f"{row['peak_gb']:.1f}"
    waits = f"{row['share_waiting']:.0%}" if "share_waiting" in row else ""
    return f"| {row['name']} | {row['images_per_second']:,.0f} | {row['milliseconds']:,.1f} | {peak} | {waits} |"


AIMS = (
    ("our step, compiled", "torchvision's reference loop, AMP", 1.3),
    ("our step, eager", "torchvision's reference loop, AMP", 1.0),
    ("our step, compiled", "the best hand-tuned loop", 1.0),
    ("our step, compiled", "timm's loop, AMP, channels last", 1.0),
    ("our training from JPEGs", "our step, eager", 0.95),
    ("extract-features of JPEGs, single", "bare net, features, single", 0.9),
    ("extract-features of JPEGs, bf16", "bare net, features, bf16", 0.9),
    ("classify of JPEGs, single", "bare net, classes, single", 0.9),
    ("classify of JPEGs, bf16", "bare net, classes, bf16", 0.9),
    ("extract-features of JPEGs, bf16", "features of JPEGs by timm", 1.0),
)


def ratios(rates: dict[str, float]) -> Iterator[str]:
    yield "\n| ratio | found | aim |\n|---|---|---|"
    for mine, other, aim in AIMS:
        values = [next((rate for name, rate in rates.items() if name.startswith(who)), None) for who in (mine, other)]
        if values[0] is not None and values[1]:
            found = values[0] / values[1]
            yield f"| {mine} : {other} | {found:.2f} | {aim:.2f}{'' if found >= aim else ' **missed**'} |"


def profile_lines(found: dict[str, Any]) -> Sequence[str]:
    lines = [f"\n## Profile of {found['steps']} steps\n", f"{found['milliseconds']:.1f} ms, the device idle for"]
    lines[-1] += f" {found['idle_share']:.1%} of it.\n\n| gaps by cause | number | ms | longest us |\n|---|---|---|---|"
    lines += [
        f"| {g['cause']} | {g['gaps']} | {g['milliseconds']:.2f} | {g['longest_us']:.0f} |" for g in found["gaps"]
    ]
    lines += ["\n| longest work | ms |\n|---|---|"]
    return [*lines, *(f"| {work['name']} | {work['milliseconds']:.2f} |" for work in found["longest_work"])]


if __name__ == "__main__":
    sys.exit(main())
