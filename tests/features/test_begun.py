"""Jobs of features that are continued keep the engine that began them; one that is not known is never made up."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from resnet_tools import extract_features
from resnet_tools.__main__ import run
from resnet_tools.compute.engines import find_engine
from resnet_tools.errors import Note
from resnet_tools.torch7.t7 import read_t7
from tests.support.demo_images import PHOTOS

ENGINES = [name for name in ("torch", "onnxruntime", "openvino") if importlib.util.find_spec(name) is not None]
BROKEN_OFF = ["--on-error", "fail", "--batch-size", "2"]  # at an image that cannot be read
SHARDS = ("--shard-size", "4")


def begin(engine: str, folder: Path, *options: str, output: str = "f.npy") -> list[str]:
    """A command whose job an engine began and that was stopped at an image that was not whole yet."""
    (folder / "half.png").write_bytes(b"no image")
    command = ["extract-features", "demo", *PHOTOS, str(folder / "half.png"), "--quiet", *BROKEN_OFF, *options]
    command += ["--output", str(folder / output)]
    assert run([*command, "--engine", engine]) == 1
    (folder / "half.png").write_bytes(Path(PHOTOS[0]).read_bytes())
    return command


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("options", [(), ("--shard-size", "4")], ids=["one file", "shards"])
def test_a_job_is_continued_by_the_engine_that_began_it(options, engine, tmp_path, capsys):
    command = begin(engine, tmp_path, *options)
    capsys.readouterr()
    assert run(command) == 0  # --engine auto
    told = [line for line in capsys.readouterr().err.splitlines() if "continued with" in line]
    if find_engine("auto", "cpu") == engine:
        assert told == []
    else:
        assert told == [f"Note: {tmp_path / 'f.npy'}: is continued with {engine}, which began it"]
    made_by = [json.loads(path.read_text())["engine"] for path in tmp_path.glob("*.json")]
    assert made_by
    assert set(made_by) == {engine}


def test_shards_keep_their_engine_when_the_job_stopped_between_two_of_them(tmp_path, capsys):
    command = begin("torch", tmp_path, "--shard-size", "4")
    shutil.rmtree(tmp_path / ".f-00002.npy.unfinished")
    made = (tmp_path / "f-00000.npy").stat().st_mtime_ns
    assert run(command) == 0
    assert "is continued with torch" in capsys.readouterr().err
    assert (tmp_path / "f-00000.npy").stat().st_mtime_ns == made


def test_in_python_a_job_keeps_its_engine_too(tmp_path):
    begin("torch", tmp_path)
    images = [*PHOTOS, str(tmp_path / "half.png")]
    arguments = {"output": tmp_path / "f.npy", "on_error": "fail", "batch_size": 2}
    with pytest.warns(Note, match="is continued with torch"):
        found = extract_features(images, "demo", **arguments)
    assert found.provenance["engine"] == "torch"


def test_a_job_whose_engine_is_gone_says_what_to_do(tmp_path, monkeypatch, capsys):
    command = begin("onnxruntime", tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    capsys.readouterr()
    assert run(command) == 1
    told = "onnxruntime, which began it, is not installed. Install it (pip install 'resnet_tools[fast]') to continue"
    assert told in capsys.readouterr().err
    assert run([*command, "--no-resume"]) == 0


def test_a_changed_precision_is_named_whatever_the_engine(tmp_path, capsys):
    command = begin("onnxruntime", tmp_path)
    capsys.readouterr()
    assert run([*command, "--precision", "bf16"]) == 1
    assert "with a different precision: 'single', now 'bf16'" in capsys.readouterr().err


def forget_engine(folder: Path) -> None:
    """Make the marks of finished shards those of a version that did not note the engine there."""
    marks = list(folder.glob(".*.done"))
    assert marks
    for mark in marks:
        noted = json.loads(mark.read_text())
        del noted["engine"]
        mark.write_text(json.dumps(noted))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("stopped", ["in a shard", "between two"])
def test_marks_without_an_engine_are_of_the_one_that_made_the_shards(engine, stopped, tmp_path, capsys):
    command = begin(engine, tmp_path, *SHARDS)
    forget_engine(tmp_path)
    if stopped == "between two":
        shutil.rmtree(tmp_path / ".f-00002.npy.unfinished")
    made = (tmp_path / "f-00000.npy").stat().st_mtime_ns
    capsys.readouterr()
    assert run(command) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "continued with" in line]
    assert told == [f"Note: {tmp_path / 'f.npy'}: is continued with {engine}, which began it"] * (
        engine != find_engine("auto", "cpu")
    )
    assert (tmp_path / "f-00000.npy").stat().st_mtime_ns == made
    assert {json.loads(path.read_text())["engine"] for path in tmp_path.glob("*.json")} == {engine}


def test_shards_whose_engine_nothing_tells_are_made_again_if_another_computes(tmp_path, capsys):
    command = begin("torch", tmp_path, *SHARDS, output="f.t7")  # which holds no provenance
    forget_engine(tmp_path)
    shutil.rmtree(tmp_path / ".f-00002.t7.unfinished")
    capsys.readouterr()
    assert run(command) == 0
    assert "began it" not in capsys.readouterr().err
    engine = json.loads((tmp_path / "f.index.json").read_text())["engine"]
    assert engine == find_engine("auto", "cpu") != "torch"
    alone = [*command[:-1], str(tmp_path / "alone.t7"), "--no-resume", "--engine", engine]
    assert run(alone) == 0
    for shard in ("00000", "00001", "00002"):
        rows, expected = (read_t7(tmp_path / f"{name}-{shard}.t7")["features"] for name in ("f", "alone"))
        np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("noted", [None, ["torch"], "caffe"])
def test_a_job_without_a_known_engine_is_refused_and_says_so(noted, tmp_path, capsys):
    command = begin("torch", tmp_path)
    job = tmp_path / ".f.npy.unfinished" / "job.json"
    content = json.loads(job.read_text()) | {"engine": noted}
    if noted is None:
        del content["engine"]
    job.write_text(json.dumps(content))
    for options in ([], ["--engine", "torch"]):
        capsys.readouterr()
        assert run([*command, *options]) == 1
        said = capsys.readouterr().err
        assert f"different engine: {'unknown' if noted is None else repr(noted)}, now" in said
        assert "--no-resume to start over" in said
        assert "began it" not in said
    assert run([*command, "--no-resume"]) == 0
