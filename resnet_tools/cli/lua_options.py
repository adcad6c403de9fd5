"""The command line of the original -> the same in GNU style: `-nGPU 2 -testOnly true` -> `--n-gpu 2 --test-only`.

The table is made from the options of the command itself: a word names the option whose long name has the same letters
(`-nGPU` and `--nGPU` are `--n-gpu`, `-LR` is `--lr`). What is GNU style already comes out unchanged: long and short
options, their values whatever they look like, file names, and all that follows `--`.

Source: opts.lua of facebook/fb.resnet.torch, and lib CmdLine of torch7.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import click

WORD = re.compile(r"--?[A-Za-z][A-Za-z0-9_-]+")
BOOLEANS = {"true": True, "false": False}
# Defaults of opts.lua that stand for "not given". Scripts pass them on.
NOT_GIVEN = {"retrain": "none", "resume": "none", "optimstate": "none", "nepochs": "0", "nclasses": "0"} | {
    "shortcuttype": ""
}
# Options of opts.lua that have no use here, by what takes their place. Both that free memory take true or false.
FREES_MEMORY = "PyTorch frees gradients by itself; --checkpoint-activations saves more memory"
RETIRED = {
    "gen": "lists of images are not stored, since a folder is read in seconds",
    "backend": "PyTorch chooses cuDNN by itself",
    "sharegradinput": FREES_MEMORY,
    "optnet": FREES_MEMORY,
}
# What other programs call options that we have under a name of other letters.
OTHER_NAMES = {
    "learningrate": "--lr",
    "epochs": "--n-epochs",
    "maxepochs": "--n-epochs",
    "numepochs": "--n-epochs",
    "bs": "--batch-size",
    "wd": "--weight-decay",
    "seed": "--manual-seed",
    "numclasses": "--n-classes",
    "valsplit": "--val-fraction",
    "validationsplit": "--val-fraction",
    "pretrained": "--retrain",
    "checkpoint": "--retrain",
    "initcheckpoint": "--retrain",
    "finetune": "--retrain",
    "imgsize": "--crop-size",
    "imgsz": "--crop-size",
    "imagesize": "--crop-size",
    "inputsize": "--crop-size",
    "outputdir": "--save",
    "output": "--save",
    "outdir": "--save",
    "saveto": "--save",
    "optimizerstate": "--optim-state",
    "gpus": "--n-gpu",
    "numgpus": "--n-gpu",
    "gpu": "--device",
    "numworkers": "--workers",
    "jobs": "--workers",
    "patience": "--early-stop",
    "amp": "--precision",
}
RETIRED_NAMES = ("-gen", "-backend", "-shareGradInput", "-optnet")


@dataclass(frozen=True)
class Spellings:
    """The options of a command. `exact`: by each of their own names; `by_letters`: own long name by its letters.

    `only_options`: the command takes no other arguments, so that a word after a flag can only be its value.
    """

    exact: dict[str, click.Option]
    by_letters: dict[str, str]
    only_options: bool
    retired: dict[str, str]


def spellings(parameters: Iterable[click.Parameter], *, trains: bool = False) -> Spellings:
    """trains: the options of the original's main.lua that have no use here belong to the command too."""
    parameters = list(parameters)
    options = [parameter for parameter in parameters if isinstance(parameter, click.Option)]
    exact = {name: option for option in options for name in (*option.opts, *option.secondary_opts)}
    by_letters = {_letters(name): name for name in exact if name.startswith("--")}
    return Spellings(exact, by_letters, len(options) == len(parameters), RETIRED if trains else {})


def gnu_arguments(arguments: Sequence[str], known: Spellings) -> tuple[list[str], list[str]]:
    """The arguments in GNU style, and a note on each option that has no use here.

    Raises: click.UsageError for a word with one dash that is no option, with those that are like it.
    """
    rest, translated, notes = deque(arguments), list[str](), list[str]()
    while rest:
        word = rest.popleft()
        if word == "--":
            return [*translated, word, *rest], notes
        name, _, _ = word.partition("=")
        if name in known.exact or not WORD.fullmatch(name) or _is_cluster(word, known):
            translated += _as_it_is(word, rest, known)
        elif _letters(name) in known.by_letters:
            translated += _translated(word, rest, known)
        elif _letters(name) in known.retired:
            notes += _retired(word, rest, known)
        elif (meant := OTHER_NAMES.get(_letters(name))) in known.exact:
            raise click.UsageError(f"No such option {name!r}. Did you mean {meant!r}?")
        elif word.startswith("--"):
            translated.append(word)  # click knows what it is like
        else:
            raise click.NoSuchOption(name, possibilities=_alike(name, known))
    return translated, notes


def _letters(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _is_cluster(word: str, known: Spellings) -> bool:
    """Short options in one word: `-xvf` is `-x -v -f`, and `-ofile` is `-o file`."""
    if word.startswith("--"):
        return False
    for letter in word[1:]:
        option = known.exact.get(f"-{letter}")
        if option is None:
            return False
        if _takes_value(option):
            return True
    return True


def _takes_value(option: click.Option) -> bool:
    return not option.is_flag and not option.count


def _as_it_is(word: str, rest: deque[str], known: Spellings) -> list[str]:
    """An option in GNU style with its values, or a word that is none."""
    name, equals, value = word.partition("=")
    option = known.exact.get(name)
    if option is not None and option.is_flag:
        if equals:
            return _flag(name, option, value) if value.lower() in BOOLEANS else [word]
        if known.only_options and rest and rest[0].lower() in BOOLEANS:
            return _flag(name, option, rest.popleft())
        return [word]
    if option is None and word[:1] == "-" and _is_cluster(word, known):
        last = known.exact.get(f"-{word[-1]}")
        inner = any(_takes_value(known.exact[f"-{letter}"]) for letter in word[1:-1] if f"-{letter}" in known.exact)
        option = None if inner else last
    count = option.nargs if option is not None and _takes_value(option) and not equals else 0
    return [word, *_taken(rest, count)]


def _taken(rest: deque[str], count: int) -> list[str]:
    return [rest.popleft() for _ in range(min(count, len(rest)))]


def _translated(word: str, rest: deque[str], known: Spellings) -> list[str]:
    """An option in the original's spelling with its value."""
    name, equals, value = word.partition("=")
    own = known.by_letters[_letters(name)]
    option = known.exact[own]
    if not option.is_flag:
        values = [value] if equals else _taken(rest, option.nargs if _takes_value(option) else 0)
        if not word.startswith("--") and values == [NOT_GIVEN.get(_letters(name))]:
            return []
        return [f"{own}={value}"] if equals else [own, *values]
    if not equals:
        value = _boolean(name, rest, known)
    elif value.lower() not in BOOLEANS:
        raise click.UsageError(f"{name} takes true or false, not {value!r}")
    return _flag(own, option, value)


def _boolean(name: str, rest: deque[str], known: Spellings) -> str:
    """The value after a flag, true if there is none."""
    if not rest or rest[0].startswith("-"):
        return "true"
    if rest[0].lower() in BOOLEANS:
        return rest.popleft()
    if known.only_options:
        raise click.UsageError(f"{name} takes true or false, not {rest[0]!r}")
    return "true"


def _flag(name: str, option: click.Option, value: str) -> list[str]:
    """The flag if it is true; if it is false its opposite, or nothing where it has none."""
    if BOOLEANS[value.lower()]:
        return [name]
    opposite = option.opts if name in option.secondary_opts else option.secondary_opts
    return list(opposite[:1])


def _retired(word: str, rest: deque[str], known: Spellings) -> list[str]:
    """Take the option and its value away; a note on it, unless it was switched off."""
    name, equals, value = word.partition("=")
    if not equals and rest and not rest[0].startswith("-"):
        value = rest.popleft()
    return [] if value == "false" else [f"{name} has no use here: {known.retired[_letters(name)]}"]


def _alike(name: str, known: Spellings) -> list[str]:
    """The options whose letters are most like those of the word."""
    from difflib import get_close_matches

    names = known.by_letters | {_letters(retired): retired for retired in RETIRED_NAMES if known.retired}
    return [names[letters] for letters in get_close_matches(_letters(name), names)]
