"""The README says what is true: its commands run, its figures are those of the program, its links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import click
import pytest
from PIL import Image

from resnet_tools import Target
from resnet_tools.__main__ import run
from resnet_tools.checkpoints.convert import ENDINGS, ROUNDED
from resnet_tools.cli import COMMANDS, cli
from resnet_tools.history.history import read_history
from resnet_tools.training.recipe import make_recipe
from tests.support.readme import (
    LAYOUT,
    README,
    ROOT,
    blocks,
    code_spans,
    commands,
    fill_working_folder,
    links,
    paths_in_tree,
)

TEXT = README.read_text()
PAGES = [README, LAYOUT, *sorted((ROOT / ".github").rglob("*.md")), ROOT / "resnet_tools" / "assets" / "README.md"]
[EXAMPLE] = blocks(TEXT, "python")
FINE_TUNING = [words for words in commands(TEXT) if "digits-run" in words]
TORCHRUN = [words for words in commands(TEXT) if words[0] == "torchrun"]
OTHERS = [words for words in commands(TEXT) if words not in FINE_TUNING + TORCHRUN]


def options_of(command: str) -> set[str]:
    found = cli.get_command(click.Context(cli), command)
    assert found is not None, command
    return {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


def table_row(first_cell: str) -> list[str]:
    [line] = [line for line in TEXT.splitlines() if line.startswith(f"| `{first_cell}` |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def in_subprocess(*words: object, cwd: Path) -> str:
    done = subprocess.run([sys.executable, *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_is_short():
    assert len(TEXT.splitlines()) <= 300


def test_the_commands_run_in_the_order_shown(tmp_path, monkeypatch, capsys):
    assert {words[1] for words in OTHERS} >= set(COMMANDS) - {"models", "download"}  # download needs a network
    fill_working_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        for program, *words in OTHERS:
            assert program == "resnet"
            assert run(words) == 0, (words, capsys.readouterr().err)
    made = {path.name for path in tmp_path.iterdir()}
    assert {"run1", "curves.svg", "photos.pt", "report", "resnet-101.safetensors", "resnet-50.onnx"} <= made
    assert (tmp_path / "report" / "index.html").is_file()
    assert len(read_history(tmp_path / "run1" / "history.csv")) == 30  # continued by --resume


@pytest.mark.slow
@pytest.mark.parametrize("words", TORCHRUN, ids=lambda words: words[4])
def test_the_commands_for_several_processes_run(words, tmp_path):
    fill_working_folder(tmp_path)
    in_subprocess("-m", "torch.distributed.run", *words[1:], cwd=tmp_path)


@pytest.mark.slow
def test_the_fine_tuning_ends_as_the_readme_shows(tmp_path):
    fill_working_folder(tmp_path)
    training, plot = FINE_TUNING
    out = in_subprocess("-m", "resnet_tools", *training[1:], cwd=tmp_path)
    in_subprocess("-m", "resnet_tools", *plot[1:], cwd=tmp_path)
    assert (tmp_path / "fine-tuning.png").is_file()
    [best] = re.findall(r"^Best: .* validation error ([\d.]+) %", out, re.MULTILINE)
    error = float(best)
    assert error < 10  # the README says about 4 %


def test_the_picture_is_small():
    [picture] = [ROOT / target for target in links(TEXT) if target.endswith(".png")]
    assert picture.stat().st_size < 60_000
    with Image.open(picture) as image:
        assert image.format == "PNG"


@pytest.mark.parametrize("span", [span for span in code_spans(TEXT) if span.startswith(("resnet ", "torchrun "))])
def test_the_text_names_commands_and_options_that_exist(span):
    command, *words = re.sub(r"^(torchrun .*-m resnet_tools|resnet) ", "", span).split()
    assert command in COMMANDS or command == "COMMAND"
    if command in COMMANDS:
        assert {word for word in words if word.startswith("--")} <= options_of(command)


def test_every_option_in_the_text_exists():
    everywhere = set().union(*map(options_of, COMMANDS))
    named = {word for span in code_spans(TEXT) for word in re.findall(r"(?:^|(?<=[ (]))--[a-z0-9-]+", span)}
    assert len(named) > 40
    assert named - everywhere <= {"--nproc-per-node", "--nnodes"}


def test_the_options_of_the_original_have_the_partners_shown():
    rows = TEXT.partition("| Original | Here |")[2].partition("\n\n")[0].splitlines()[2:]
    for row in rows:
        left, right = ({*re.findall(r"`([^`]+)`", cell)} for cell in row.split("|")[1:3])
        assert right <= options_of("train"), row
        assert all(re.fullmatch(r"-[a-zA-Z]+", name) for name in left), row


@pytest.mark.parametrize("name", ["original", "finetune", "modern"])
def test_the_recipes_are_those_of_the_table(name):
    row, made = table_row(name)[2], make_recipe(name, "imagenet")
    said = [f"{made.epochs} epochs"]
    if name == "original":
        said += [f"learning rate {made.lr:g}", f"batch size {made.batch_size}", "every 30 epochs", "weight decay 1e-4"]
        cifar = make_recipe(name, "cifar10")
        said += [f"from epochs {cifar.steps[0]} and {cifar.steps[1]}", f"CIFAR: {cifar.epochs}"]
        assert made.steps[1] - made.steps[0] == 30
        assert made.weight_decay == 1e-4
    else:
        said += [f"after {made.warmup_epochs:g} epoch", f"label smoothing {made.label_smoothing:g}"]
    if name == "finetune":
        said += [f"learning rate {made.lr:g}", f"{made.classifier_lr:g} for the new classifier"]
    if name == "modern":
        said += [f"batch size {made.batch_size}", f"mixup {made.mixup:g}", f"CutMix {made.cutmix:.1f}"]
    assert [text for text in said if text not in row] == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_tolerances_are_those_of_the_table(ending):
    assert float(table_row(ending)[-1]) == Target(Path(f"net{ending}")).tolerance
    assert f"{ROUNDED['float16']:g} (float16) or {ROUNDED['bfloat16']:g} (bfloat16)" in " ".join(TEXT.split())


def test_the_python_example_runs_as_it_stands(tmp_path):
    fill_working_folder(tmp_path)
    lines = in_subprocess("-c", EXAMPLE, cwd=tmp_path).splitlines()
    assert lines[0] == "bag"
    assert "torch.FloatTensor" in lines
    assert (tmp_path / "demo.safetensors").is_file()


def test_the_python_example_passes_a_users_strict_mypy(tmp_path):
    names = ["logits", "checkpoint.class_names", "labels", "features", "run", "result.confusion_matrix", "maps"]
    ending = "".join(f"\nreveal_type({name})" for name in names) + "\n"
    (tmp_path / "script.py").write_text(EXAMPLE + ending)
    cache = f"--cache-dir={ROOT / '.mypy_cache' / 'readme'}"
    options = ["--strict", "--follow-imports=silent", "--config-file=", cache]
    command = [sys.executable, "-m", "mypy", *options, "script.py"]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    revealed = re.findall(r'Revealed type is "(.*)"', done.stdout)
    assert revealed[:2] == ["torch._tensor.Tensor", "list[str] | None"]
    assert [revealed[2], revealed[4]] == [
        "resnet_tools.jobs.classify.Predictions",
        "resnet_tools.jobs.train.TrainedRun",
    ]
    assert all("ndarray" in revealed[k] for k in (3, 5, 6))
    assert "int64" in revealed[5] or "signedinteger" in revealed[5]
    assert "float32" in revealed[6] or "floating" in revealed[6]


def test_with_length_1_the_matrix_product_is_the_cosine_similarity(tmp_path, monkeypatch):
    import torch

    monkeypatch.chdir(tmp_path)
    assert run(["extract-features", "demo", str(ROOT / "resnet_tools/assets/images"), "--l2-normalize", "--quiet"]) == 0
    features = torch.load("features.pt", weights_only=True)["features"]
    pairs = torch.nn.functional.cosine_similarity(features[:, None], features[None], dim=2)
    assert torch.allclose(features @ features.T, pairs, atol=1e-6)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    for target in links(page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_scripts_that_are_named_exist(page):
    for name in re.findall(r"\bscripts/\w+", page.read_text()):
        assert (ROOT / name).is_file(), name


def test_the_layout_names_every_module_and_nothing_else():
    named = paths_in_tree(blocks(LAYOUT.read_text(), "")[0])
    package = ROOT / "resnet_tools"
    files = {f"{path.relative_to(package)}" for path in package.rglob("*.py") if path.name != "__init__.py"}
    rooms = {f"{path.parent.relative_to(package)}/" for path in package.rglob("*.py")} - {"./"}
    assert sorted((files | rooms) - named) == [], "resnet_tools/README.md lacks these lines"
    assert sorted(name for name in named if not (package / name).exists()) == [], "there are no such files"


@pytest.mark.skipif(not (ROOT / ".venv").is_dir(), reason="the tests do not run in the environment of scripts/test")
def test_the_demo_prints_what_the_readme_shows():
    done = subprocess.run([ROOT / "scripts" / "demo"], capture_output=True, text=True, check=True, cwd="/")
    shown = re.search(r"```\n(Classes for.*?)```", TEXT, re.DOTALL)
    assert shown is not None
    assert done.stdout.splitlines()[-1].startswith("saved features to ")
    words = [line.split("\t")[1] for line in done.stdout.splitlines()[:6]]
    assert words == [line.split("\t")[1] for line in shown[1].splitlines()]
    assert os.path.basename(words[0]) == "ankle_boot.png"
