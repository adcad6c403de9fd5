"""The command lines of the original, as typed, and GNU ones, which nothing may change."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib import import_module

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_tools.__main__ import run
from resnet_tools.checkpoints.model_files import DEMO_PATH
from resnet_tools.cli import COMMANDS, cli
from resnet_tools.cli.lua_options import RETIRED, gnu_arguments, spellings

# opts.lua of facebook/fb.resnet.torch: every option, with a value that its program takes.
OPTS_LUA = """-data d -dataset imagenet -manualSeed 3 -nGPU 2 -backend cudnn -cudnn fastest -gen gen -precision single
-nThreads 4 -nEpochs 90 -epochNumber 2 -batchSize 32 -testOnly true -tenCrop true -save s -resume r -LR 0.1
-momentum 0.9 -weightDecay 1e-4 -netType resnet -depth 50 -shortcutType B -retrain x.t7 -optimState o.t7
-shareGradInput false -optnet false -resetClassifier true -nClasses 80"""
IN_GNU_STYLE = """--data d --dataset imagenet --manual-seed 3 --n-gpu 2 --cudnn fastest --precision single
--n-threads 4 --n-epochs 90 --epoch-number 2 --batch-size 32 --test-only --ten-crop --save s --resume r --lr 0.1
--momentum 0.9 --weight-decay 1e-4 --net-type resnet --depth 50 --shortcut-type B --retrain x.t7 --optim-state o.t7
--reset-classifier --n-classes 80"""


def known(command: str):
    context = click.Context(cli, help_option_names=["-h", "--help"])
    return spellings(cli.get_command(context, command).get_params(context), trains=command == "train")


def translated(line: str, command: str = "train") -> list[str]:
    return gnu_arguments(shlex.split(line), known(command))[0]


def test_every_option_of_the_original_is_accepted_as_written():
    arguments, notes = gnu_arguments(OPTS_LUA.split(), known("train"))
    assert arguments == IN_GNU_STYLE.split()
    assert [note.split()[0] for note in notes] == ["-backend", "-gen"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--nGPU 2 --testOnly --batchSize=8", "--n-gpu 2 --test-only --batch-size=8"),
        ("-testOnly -tenCrop", "--test-only --ten-crop"),
        ("-testOnly false -tenCrop TRUE -data d", "--ten-crop --data d"),
        ("--test-only true --ten-crop=false --check false", "--test-only --no-check"),
        ("--no-check true --no-check=false", "--no-check --check"),
        ("-retrain none -resume none -optimState none -nEpochs 0 -nClasses 0 -shortcutType ''", ""),
        ("--retrain none", "--retrain none"),
        ("-LR -1 -data -nGPU", "--lr -1 --data -nGPU"),  # what stands behind an option is its value
        ("--data -testOnly -- -nGPU 2", "--data -testOnly -- -nGPU 2"),
        ("-shareGradInput true -optnet false", ""),
        ("-1 -0.5 -1e-3 - ./-data -data.jpg", "-1 -0.5 -1e-3 - ./-data -data.jpg"),
        ("-h", "-h"),
        ("-help", "--help"),
    ],
)
def test_how_words_are_read(line, expected):
    assert translated(line) == shlex.split(expected)


def test_other_commands_have_their_own_options_in_this_spelling():
    assert translated("m.t7 -data d -tenCrop true -batchSize 8", "evaluate") == [
        "m.t7",
        "--data",
        "d",
        "--ten-crop",
        "--batch-size",
        "8",
    ]
    # A file may be called true: only behind the original's spelling is the word a value.
    assert translated("m.t7 --json true", "classify") == ["m.t7", "--json", "true"]
    assert translated("m.t7 -tenCrop true a.jpg", "classify") == ["m.t7", "--ten-crop", "a.jpg"]
    assert translated("m.t7 -tenCrop a.jpg", "classify") == ["m.t7", "--ten-crop", "a.jpg"]
    with pytest.raises(click.NoSuchOption):
        translated("m.t7 -gen gen", "classify")


def test_short_options_are_never_taken_for_words():
    output = click.Option(["-o", "--output"])
    flags = [
        click.Option([f"-{letter}", f"--{name}"], is_flag=True) for letter, name in (("v", "verbose"), ("x", "exact"))
    ]
    long = [click.Option(["--vx"], is_flag=True), click.Option(["--out-file"])]
    table = spellings([output, *flags, *long])
    for line in ("-vx", "-oFile", "-outFile", "-vxo -vx", "-o -outFile", "-vofile -x"):
        assert gnu_arguments(line.split(), table)[0] == line.split()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("-bactSize", "--batch-size"),
        ("-tstOnly", "--test-only"),
        ("-backnd", "-backend"),
        ("-learningRate", "--lr"),
        ("--learning-rate", "--lr"),
        ("--epochs", "--n-epochs"),
        ("--seed", "--manual-seed"),
    ],
)
def test_a_word_that_is_no_option_names_those_like_it(typed, meant, capsys):
    assert run(["train", typed, "8"]) == 2
    message = capsys.readouterr().err
    assert "Usage: resnet train" in message
    assert re.search(rf"No such option:? '?{typed}'?.*{meant}", message)


def test_a_flag_with_another_word_behind_it_is_an_error(capsys):
    assert run(["train", "-testOnly", "yes", "-data", "d"]) == 2
    assert "-testOnly takes true or false, not 'yes'" in capsys.readouterr().err


def options_of(command: str) -> list[click.Option]:
    return [option for option in set(known(command).exact.values()) if option.opts[0] != "--help"]


@st.composite
def gnu_lines(draw):
    """A command and an ordinary GNU line for it: options in every form with any values, files between them."""
    command = draw(st.sampled_from(list(COMMANDS)))
    table = known(command)
    value = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
    value |= st.sampled_from(["-1", "-1e-3", "true", "false", "-nGPU", "--", "-", "none", "-data", "a/-b.jpg", "0"])
    word = value.filter(lambda text: not text.startswith("-") and text.lower() not in ("true", "false"))
    line: list[str] = []
    for name in draw(st.lists(st.sampled_from(sorted(table.exact)), max_size=6)):
        option = table.exact[name]
        if option.is_flag:
            line.append(name)
        else:
            given = draw(value)
            line += [f"{name}={given}"] if name.startswith("--") and draw(st.booleans()) else [name, given]
        if not table.only_options:
            line += draw(st.lists(word | st.sampled_from(["-", "-3", "-.5"]), max_size=2))
    tail = draw(st.lists(value, max_size=3))
    return command, [*line, *(["--", *tail] if draw(st.booleans()) else [])]


@given(gnu_lines())
def test_gnu_lines_come_out_unchanged(case):
    command, line = case
    assert gnu_arguments(line, known(command)) == (line, [])


@given(st.data())
def test_any_camel_case_of_a_long_option_is_that_option(data):
    command = data.draw(st.sampled_from(list(COMMANDS)))
    table = known(command)
    name = data.draw(st.sampled_from(sorted(name for name in table.exact if len(name) > 4)))
    first, *others = name[2:].split("-")
    lua = data.draw(st.sampled_from(["-", "--"])) + first + "".join(part.title() for part in others)
    option = table.exact[name]
    if option.is_flag:
        assert gnu_arguments([lua, "true"], table)[0] in (
            [name],
            [lua, "true"],
        )  # --json true: a file may be called true
    else:
        assert gnu_arguments([lua, "-7"], table)[0] == [name, "-7"]


@given(st.lists(st.text(max_size=6) | st.sampled_from(OPTS_LUA.split()), max_size=8), st.sampled_from(list(COMMANDS)))
def test_whatever_is_typed_gives_arguments_or_a_usage_error(line, command):
    try:
        once = gnu_arguments(line, known(command))[0]
    except click.UsageError:
        return
    assert all(isinstance(word, str) for word in once)


def test_a_misspelled_command_names_the_one_that_was_meant(capsys):
    import_module("resnet_tools.cli.map")  # whose name in the package is then that of a builtin
    for typed, meant in (
        ("clasify", "classify"),
        ("extract_features", "extract-features"),
        ("main.lua", "resnet train"),
    ):
        assert run([typed, "x"]) == 2
        assert meant in capsys.readouterr().err
    assert run(["-data", "d", "-testOnly", "true"]) == 2
    assert "resnet train -data" in capsys.readouterr().err
    assert run(["--versoin"]) == 2
    assert "--version" in capsys.readouterr().err


def test_the_original_s_command_trains(tmp_path, capsys):
    """As in pretrained/README.md of the original, on one CPU."""
    data = DEMO_PATH.parent / "digits"
    line = f"-retrain {DEMO_PATH} -data {data} -testOnly true -nGPU 1 -nThreads 2 -gen {tmp_path} -backend cudnn"
    assert run(["train", *line.split(), "--check", "false"]) in (0, 1)
    done = capsys.readouterr()
    assert re.findall(r"Note: (-\w+) has no use here", done.err) == ["-gen", "-backend"]
    assert set(RETIRED) == {"gen", "backend", "sharegradinput", "optnet"}


@pytest.mark.skipif(os.name != "posix", reason="a shell starts it")
def test_work_in_the_background_of_a_script_ends_on_sigint(tmp_path):
    images = DEMO_PATH.parent / "images"
    words = ["-m", "resnet_tools", "classify", "demo", *[str(images)] * 200]
    script = f"{shlex.join([sys.executable, *words])} > {tmp_path}/out 2> {tmp_path}/err & echo $!; wait $!; echo $?"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True) as shell:
        number = int(shell.stdout.readline())
        end = time.monotonic() + 60
        out = tmp_path / "out"  # the shell's child makes it, perhaps after the shell said its number
        while not (out.exists() and out.stat().st_size) and time.monotonic() < end:
            time.sleep(0.05)
        os.kill(number, signal.SIGINT)
        assert shell.stdout.readline() == "130\n"
    assert (tmp_path / "err").read_text() == "Stopped.\n"
