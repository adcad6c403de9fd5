"""No name of a file, folder or class reaches a terminal as it is: each could rewrite what stands there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from resnet_tools.__main__ import run
from resnet_tools.checkpoints.model_files import DEMO_PATH

EVIL = "e\x1b[31m\nvil\u202e"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The current folder, with files of all kinds in a folder of such a name."""
    monkeypatch.chdir(tmp_path)
    top = tmp_path / EVIL
    for number, name in enumerate(("a", EVIL)):
        for side_px in (8, 9 + number):
            (top / "data" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (side_px, 9), (80 * number, 90, 10)).save(top / "data" / name / f"{EVIL}{side_px}.png")
    (top / "data" / "a" / f"{EVIL}.png").write_text("<html>")
    (top / "data" / "a" / f"x.{EVIL}").touch()
    shutil.copy(DEMO_PATH, top / f"{EVIL}.t7")
    (top / "names.txt").write_text("".join(f"{EVIL.splitlines()[0]}{k}\u2028\n" for k in range(10)))
    (top / "bad.txt").write_text(f"{EVIL}\n")
    (top / "empty").mkdir()
    (top / "list").write_text(f"gone{EVIL.splitlines()[0]}\nz\n")
    return EVIL


@pytest.mark.parametrize(
    "command",
    [
        "classify {0}/{0}.t7 {0}/data",
        "classify demo {0}/data --labels {0}/names.txt --output {0}/out.txt",
        "classify demo {0}/data --labels {0}/bad.txt",
        "classify demo {0}/data --csv",
        "classify demo {0}/data --output {0}/empty",
        "classify demo {0}/gone.png {0}/empty",
        "classify demo --from-file {0}/list",
        "classify demo --from-file {0}/gone",
        "classify {0}/gone.t7 {0}/data",
        "classify {0}/empty {0}/data",
        "classify {0}/bad.txt {0}/data",
        "extract-features {0}/{0}.t7 --dir {0}/data --output {0}/out.pt",
        "extract-features demo --dir {0}/gone",
        "extract-features demo {0}/data --output {0}/out.npy",
        "convert {0}/{0}.t7 {0}/out.pt --classes {0}/names.txt",
        "convert {0}/{0}.t7 {0}/out.t7 --classes {0}/names.txt",
        "convert demo {0}/out.{0}",
        "verify demo {0}/{0}.t7 --images {0}/data",
        "inspect {0}/{0}.t7",
        "inspect {0}/gone",
        "check-data {0}/data",
        "check-data {0}/empty",
        "check-data {0}/gone",
        "evaluate {0}/{0}.t7 --data {0}/data",
        "evaluate demo --data {0}/data --class-names {0}/bad.txt",
        "evaluate demo --data {0}/data --labels {0}/names.txt",
        "train --data {0}/data --save {0}/run",
        "train --data {0}/gone --save {0}/run",
        "train --data {0}/data --retrain {0}/gone.t7",
        "train --data {0}/data --resume {0}/empty",
        "plot {0}/empty",
        "plot {0}/gone --output {0}/x.png",
        "{0}",
        "classify --{0}",
    ],
)
def test_names_are_escaped_wherever_they_are_printed(command, place, capfdbinary):
    run([part.format(place) for part in command.split()])
    captured = capfdbinary.readouterr()
    text = (captured.out + captured.err).decode()
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert not any(line.startswith("vil") for line in text.splitlines())
    assert r"\x1b[31m" in text
