"""`args.json`: what a resumed run takes from it, and what it does not."""

from __future__ import annotations

import json

import pytest

from resnet_tools.cli.train import command
from resnet_tools.errors import TrainingError
from resnet_tools.training.arguments import FORMAT, given_anew, keep_arguments, option_text, stored_arguments
from resnet_tools.training.options import TrainOptions


def options(**changes) -> TrainOptions:
    """The defaults of the command line, with some changed."""
    context = command.make_context("train", [])
    return TrainOptions(**(context.params | changes))


def test_what_was_given_is_read_back(tmp_path):
    keep_arguments(options(data=str(tmp_path), on_error="skip", keep=0, save_every=0.5, lr=0.2), tmp_path)
    found = stored_arguments(tmp_path)
    assert found["data"] == str(tmp_path)
    assert (found["on_error"], found["keep"], found["save_every"], found["check"]) == ("skip", 0, 0.5, True)
    assert not {"lr", "device", "resume", "ten_crop"} & {name for name, value in found.items() if value is not False}


def test_a_folder_without_it_gives_nothing(tmp_path):
    assert stored_arguments(tmp_path) == {}


def test_a_path_is_found_again_from_another_folder_and_after_a_move(tmp_path, monkeypatch):
    (tmp_path / "a/photos").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a")
    keep_arguments(options(data="photos"), tmp_path / "a")
    assert stored_arguments(tmp_path / "a")["data"] == "photos"  # as it was typed, while it leads there
    (tmp_path / "b/photos").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "b")  # where there are other photos
    assert stored_arguments(tmp_path / "a")["data"] == str(tmp_path / "a/photos")
    (tmp_path / "a/photos").rmdir()
    assert stored_arguments(tmp_path / "a")["data"] == "photos"  # both were moved together


def test_a_resumed_run_keeps_what_it_was_started_with(tmp_path):
    first, second = tmp_path / "one", tmp_path / "two"
    first.mkdir()
    second.mkdir()
    keep_arguments(options(data="x", retrain="net.t7", reset_classifier=True, epoch_number=3, lr=0.1, keep=1), first)
    keep_arguments(options(data="x", resume=str(first), freeze=0, keep=5), second)
    started = json.loads((second / "args.json").read_text())["options"]
    assert (started["retrain"], started["reset_classifier"], started["epoch_number"]) == ("net.t7", True, 3)
    assert (started["lr"], started["freeze"], started["keep"]) == (0.1, 0, 5)
    assert not {"resume", "save", "overwrite"} & set(started)


GOOD = {"format": FORMAT, "version": 1, "options": {"data": "x"}, "absolute": {}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"1" * 5000,
        b"x" * ((1 << 20) + 1),
        b"[1]",
        {},
        GOOD | {"format": "resnet_tools"},
        GOOD | {"version": 2},
        GOOD | {"version": True},
        GOOD | {"options": [1]},
        GOOD | {"absolute": None},
        GOOD | {"options": {"data": ["x"]}},
        GOOD | {"options": {"on_error": {"a": 1}}},
        GOOD | {"options": {"data": "x\0"}},
        GOOD | {"options": {"cudnn": "y" * 40_000}},
    ],
    ids=lambda content: f"{content!r:.40}",
)
def test_a_damaged_file_is_named_with_the_way_on(tmp_path, content):
    path = tmp_path / "args.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(TrainingError) as raised:
        stored_arguments(tmp_path)
    assert str(raised.value).startswith(str(path))
    assert f"Remove {path} and give --data" in str(raised.value)


def test_only_what_differs_was_given_anew(tmp_path):
    stored = {"data": str(tmp_path), "on_error": "fail", "check": True}
    given = {"data": tmp_path / ".", "on_error": "skip", "check": False, "precision": "double"}
    expected = ["--on-error skip (was fail)", "--no-check (was --check)", "--precision double (was not given)"]
    assert given_anew(stored, given) == expected
    assert option_text("epochs", 3) == "--n-epochs 3"
