"""Commands whose faults are tried at each point where they change the disk, and what must be true after each."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from resnet_tools import save_model
from resnet_tools.__main__ import run as run_command
from tests.hardening.faults import FAILED, STOPPED, Fault, run
from tests.hardening.fuzzing import IN_MEMORY
from tests.hardening.targets import narrow_cifar_net, narrow_imagenet_net

FULL_DISK = re.compile(r"^Error: .*[Nn]o space left on device", re.MULTILINE)
MOST_PROBLEMS = 5  # one fault of the code shows at many points
SIZES = "--crop-size 32 --resize-size 36 --workers 0"


@dataclass(frozen=True)
class Job:
    """A command; `{out}` is the folder that it writes to, `{address}` that of a server that has the files of `{data}`.

    `again`: how it is given again, if not in the same words.

    `changing`: files that are replaced while it runs; all others are whole, and the last, whenever they are there.
    """

    command: str
    again: Callable[[Path], str] = lambda _: ""
    changing: tuple[str, ...] = ()


@dataclass
class Tried:
    """What became of a job: points, how often each fault was tried, and where what must be true was not."""

    points: int
    faults: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        faults = ", ".join(f"{count} times {fault}" for fault, count in self.faults.items())
        return f"{self.points} points, {faults}: {len(self.problems)} problems"


def _train_again(out: Path) -> str:
    return f"--resume {out}/run" if (out / "run" / "latest.pt").exists() else "--overwrite"


def _classifier_again(out: Path) -> str:
    return "--overwrite" if (out / "run" / "model_best.pt").exists() else ""


def _download_again(out: Path) -> str:
    """A file of an address that is there is not replaced unasked, as nobody says what it should hold."""
    return "--force" if (out / "small.pt").exists() else ""


OUTPUT = f"--batch-size 2 {SIZES} --quiet --output {{out}}/f"
EXTRACT = f"extract-features {{data}}/small.pt {{data}}/images {OUTPUT}"
SHARDS = f"extract-features {{data}}/small.pt {{data}}/images/[0-3].png {OUTPUT}.npy --shard-size 2"
FORMATS = (".pt", ".npy", ".npz", ".safetensors", ".t7", ".csv", ".h5", ".parquet")
QUICK = "--quiet --no-check --no-report --augment none"
SAVE = f"{SIZES} {QUICK} --save {{out}}/run --manual-seed 3"
TRAIN = f"train --data {{data}}/set {SAVE}"
FIRST = " --retrain {data}/net.pt --reset-classifier --n-epochs 2 --batch-size 2"
CHANGING = ("run/latest.pt", "run/history.csv", "run/model_best.pt")
JOBS = {
    **{f"extract{ending}": Job(f"{EXTRACT}{ending}") for ending in FORMATS},
    "extract shards": Job(SHARDS),
    "train": Job(TRAIN + FIRST, _train_again, CHANGING),
    "train keep": Job(f"{TRAIN} --keep 1{FIRST}", _train_again, CHANGING),
    "train within epochs": Job(f"{TRAIN} --save-every 0.0000001{FIRST}", _train_again, CHANGING),
    "train with a cache": Job(
        f"train --data {{data}}/photos --cache {{out}}/cache {SAVE}{FIRST}".replace("epochs 2", "epochs 1"),
        _train_again,
        CHANGING,
    ),
    "train the classifier": Job(
        f"{TRAIN} --retrain {{data}}/net.pt --classifier-only --batch-size 2", _classifier_again, CHANGING
    ),
    **{
        f"convert{ending}": Job(f"convert {{data}}/small.pt {{out}}/net{ending} --force")
        for ending in (".pt", ".safetensors", ".onnx", ".t7")
    },
    "download": Job("download {address}small.pt --output {out}/small.pt --quiet", _download_again),
    "evaluate": Job(f"evaluate {{data}}/net.pt --data {{data}}/set {SIZES} --quiet --report {{out}}/report"),
}


def make_data(folder: Path) -> Path:
    """Seven small images, one of them damaged, data sets of two classes, small and large, and a narrow net."""
    pixels = np.random.default_rng(0)
    places = [*(f"set/{split}/{name}" for split in ("train", "val") for name in "ab"), "images"]
    for place in places:
        (folder / place).mkdir(parents=True)
        for number in range(7 if place == "images" else 2):
            picture = pixels.integers(0, 256, (40, 44, 3), np.uint8)
            Image.fromarray(picture).save(folder / place / f"{number}.png")
    for place in (f"photos/{split}/{name}" for split in ("train", "val") for name in "ab"):
        (folder / place).mkdir(parents=True)
        picture = pixels.integers(0, 256, (110, 120, 3), np.uint8)  # 96 are large for crops of 32
        Image.fromarray(picture).save(folder / place / "0.jpg")
    (folder / "images" / "3.png").write_bytes(b"no image")
    save_model(narrow_imagenet_net(), folder / "net.pt")
    save_model(replace(narrow_cifar_net(), class_names=None), folder / "small.pt")
    return folder


def try_all(job: Job, data: Path) -> Tried:
    """Let each fault happen at each point where it makes a difference, and go on after it."""
    with ExitStack() as stack:
        out = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=IN_MEMORY))) / "out"
        out.mkdir()
        if "{address}" in job.command:
            job = replace(job, command=job.command.replace("{address}", stack.enter_context(_served(data))))
        return _try_all(job, data, out)


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """The address of a server, which is a process of its own: one with threads should not be forked."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        port = re.search(r"port (\d+)", server.stdout.readline())
        assert port is not None
        yield f"http://127.0.0.1:{port[1]}/"
        server.kill()


def _try_all(job: Job, data: Path, out: Path) -> Tried:
    undisturbed = run(command_of(job, data, out), out)
    assert undisturbed.code == 0, undisturbed.printed
    expected = content_of(out)
    tried = Tried(len(undisturbed.points))
    for fault, at in undisturbed.faults():
        if len(tried.problems) >= MOST_PROBLEMS:
            break
        tried.faults[fault] += 1
        shutil.rmtree(out)
        out.mkdir()
        for problem in _try(job, data, out, fault, at, expected):
            tried.problems.append(f"{fault} at point {at}, {undisturbed.points[at - 1][0]}: {problem}")
    return tried


def _try(job: Job, data: Path, out: Path, fault: Fault, at: int, expected: Mapping[str, object]) -> Iterator[str]:
    """What is wrong after one fault, or after the command that is given again."""
    done = run(command_of(job, data, out), out, fault, at)
    if done.code != (FAILED if fault == "full disk" else STOPPED):
        yield f"ended with {done.code}: {done.printed}"
    if fault == "full disk" and not FULL_DISK.search(done.printed):
        yield f"said {done.printed}"
    for name, content in content_of(out).items():
        if content != expected.get(name, content) and name not in job.changing:
            yield f"left another {name}"
    done = run(command_of(job, data, out, again=True), out)
    if done.code != 0:
        yield f"given again it ended with {done.code}: {done.printed}"
        return
    found = content_of(out)
    if found.keys() != expected.keys():
        yield f"given again it left {sorted(found.keys() ^ expected.keys())} too many or too few"
    for name in found.keys() & expected.keys():
        if found[name] != expected[name]:
            yield f"given again it wrote another {name}"


def command_of(job: Job, data: Path, out: Path, *, again: bool = False) -> Callable[[], int]:
    command = job.command
    if again and job.again(out).startswith("--resume"):
        command = command.partition(" --retrain")[0].replace(" --manual-seed 3", "")
    words = f"{command} {job.again(out) if again else ''}".format(data=data, out=out).split()
    return lambda: run_command(words)


def content_of(folder: Path) -> dict[str, object]:
    """What the files hold; times of training, which are never the same, are left out."""
    found: dict[str, object] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, content = path.relative_to(folder).as_posix(), path.read_bytes()
        if path.name == "history.csv":
            found[name] = [line.split(b",")[:8] for line in content.splitlines()]
        elif path.name.startswith("optimState"):
            state = torch.load(path, weights_only=True)
            state["history"] = [epoch[:8] for epoch in state["history"]]
            found[name] = repr({key: value for key, value in state.items() if key != "seconds"})
        else:
            found[name] = content
    return found
