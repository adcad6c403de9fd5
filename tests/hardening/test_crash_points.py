"""Work that is stopped at any point where it changes the disk goes on, and ends with the bytes of work that was not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_tools import save_model
from resnet_tools.__main__ import run as run_command
from tests.hardening.faults import FAILED, STOPPED, run
from tests.hardening.targets import narrow_cifar_net, narrow_imagenet_net

SIZES = "--crop-size 32 --resize-size 36 --workers 0"


@dataclass(frozen=True)
class Job:
    """A command; `{out}` is the folder that it writes to. `again`: how it is given again, if not in the same words."""

    command: str
    again: Callable[[Path], str] = lambda _: ""


def _train_again(out: Path) -> str:
    return f"--resume {out}/run" if (out / "run" / "latest.pt").exists() else "--overwrite"


EXTRACT = f"extract-features {{data}}/small.pt {{data}}/images --batch-size 2 {SIZES} --quiet --output {{out}}/f"
QUICK = "--quiet --no-check --no-report --augment none"
TRAIN = f"train --data {{data}}/set {SIZES} {QUICK} --save {{out}}/run --manual-seed 3"
FIRST = " --retrain {data}/net.pt --reset-classifier --n-epochs 2 --batch-size 2"
JOBS = {
    **{f"extract{ending}": Job(f"{EXTRACT}{ending}") for ending in (".pt", ".npy", ".npz", ".safetensors", ".t7")},
    "extract shards": Job(f"{EXTRACT}.npy --shard-size 3"),
    "train": Job(TRAIN + FIRST, _train_again),
    "train keep": Job(f"{TRAIN} --keep 1{FIRST}", _train_again),
    "train within epochs": Job(f"{TRAIN} --save-every 0.0000001{FIRST}", _train_again),
    **{
        f"convert{ending}": Job(f"convert {{data}}/small.pt {{out}}/net{ending} --force")
        for ending in (".pt", ".safetensors", ".t7")
    },
    "evaluate": Job(f"evaluate {{data}}/net.pt --data {{data}}/set {SIZES} --quiet --report {{out}}/report"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven small images, one of them damaged, a data set of two classes, and a narrow net."""
    folder = tmp_path_factory.mktemp("data")
    pixels = np.random.default_rng(0)
    places = [*(f"set/{split}/{name}" for split in ("train", "val") for name in "ab"), "images"]
    for place in places:
        (folder / place).mkdir(parents=True)
        for number in range(7 if place == "images" else 2):
            picture = pixels.integers(0, 256, (40, 44, 3), np.uint8)
            Image.fromarray(picture).save(folder / place / f"{number}.png")
    (folder / "images" / "3.png").write_bytes(b"no image")
    save_model(narrow_imagenet_net(), folder / "net.pt")
    save_model(replace(narrow_cifar_net(), class_names=None), folder / "small.pt")
    return folder


def _job(job: Job, data: Path, out: Path, *, again: bool = False) -> Callable[[], int]:
    command = job.command
    if again and job.again(out).startswith("--resume"):
        command = command.partition(" --retrain")[0].replace(" --manual-seed 3", "")
    words = f"{command} {job.again(out) if again else ''}".format(data=data, out=out).split()
    return lambda: run_command(words)


def _content(folder: Path) -> dict[str, object]:
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


QUICK_JOBS = ("extract.pt", "extract.npy", "convert.pt")  # the others take minutes


@pytest.mark.parametrize(
    "name", [name if name in QUICK_JOBS else pytest.param(name, marks=pytest.mark.slow) for name in JOBS]
)
def test_work_goes_on_after_a_stop_at_every_point(name: str, data: Path, tmp_path: Path):
    job, out = JOBS[name], tmp_path / "out"
    out.mkdir()
    undisturbed = run(_job(job, data, out), out)
    assert undisturbed.code == 0, undisturbed.printed
    expected = _content(out)
    assert len(undisturbed.points) > 8
    for fault, at in undisturbed.faults():
        where = f"{fault} at point {at}, {undisturbed.points[at - 1][0]}"
        shutil.rmtree(out)
        out.mkdir()
        done = run(_job(job, data, out), out, fault, at)
        assert done.code == (FAILED if fault == "full disk" else STOPPED), f"{where}: {done.printed}"
        assert fault != "full disk" or "Error: " in done.printed, where
        done = run(_job(job, data, out, again=True), out)
        assert done.code == 0, f"after {where}: {done.printed}"
        found = _content(out)
        assert found.keys() == expected.keys(), f"after {where}"
        different = [file for file in expected if found[file] != expected[file]]
        assert not different, f"after {where}: {different} differ"
