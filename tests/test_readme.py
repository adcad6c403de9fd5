"""The README says what is true: help texts, the Python example, the tree."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from resnet_tools.cli import COMMANDS
from tests.support.readme import README, with_help

ROOT = README.parent
TEXT = README.read_text()


def test_help_texts_are_those_of_the_commands():
    assert with_help(TEXT) == TEXT, "run: python -m tests.support.readme"
    assert re.findall(r"<!-- help: ([\w-]+) -->", TEXT) == list(COMMANDS)


def test_the_python_example_runs_as_it_stands(tmp_path):
    [_, code] = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    for folder in ("resnet_tools", "tests"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "bag"
    assert done.stdout.splitlines()[-1] == "torch.FloatTensor"


def test_the_nearest_neighbours_run_as_they_stand(tmp_path):
    [command] = re.findall(r"after `resnet (extract-features [^`]*)`", TEXT)
    [code, _] = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    words = [str(ROOT / word) if word.startswith("resnet_tools/") else word for word in command.split()]
    subprocess.run([sys.executable, "-m", "resnet_tools", *words], cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 10
    assert all(line.count(".png") == 5 for line in lines)


@pytest.mark.slow
def test_the_fine_tuning_ends_as_the_readme_shows(tmp_path):
    [command] = re.findall(r"```\nresnet (train [^\n]*--save digits-run)\n```", TEXT)
    words = [str(ROOT / word) if word.startswith("resnet_tools/") else word for word in command.split()]
    done = subprocess.run([sys.executable, "-m", "resnet_tools", *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = re.search(r"```\n(Recipe finetune: .*?), \.\.\.\n", TEXT)
    assert shown is not None
    assert done.stdout.startswith(shown[1])
    error = float(done.stdout.splitlines()[-1].split()[3])
    assert error < 10  # the README says some 4 %


def test_the_tree_names_every_module():
    tree = TEXT.partition("## The house")[2].partition("```")[2].partition("```")[0]
    for path in sorted((ROOT / "resnet_tools").rglob("*.py")):
        folder = path.relative_to(ROOT).parts
        name = f"{folder[-2]}/" if path.name == "__init__.py" else path.name
        assert name in tree or "cli" in folder, path


@pytest.mark.skipif(not (ROOT / ".venv").is_dir(), reason="the tests do not run in the environment of scripts/test")
def test_the_demo_prints_what_the_readme_shows():
    done = subprocess.run([ROOT / "scripts" / "demo"], capture_output=True, text=True, check=True, cwd="/")
    shown = re.search(r"```\n(Classes for.*?)```", TEXT, re.DOTALL)
    assert shown is not None
    assert done.stdout.splitlines()[-1].startswith("saved features to ")
    words = [line.split("\t")[1] for line in done.stdout.splitlines()[:6]]
    assert words == [line.split("\t")[1] for line in shown[1].splitlines()]
    assert os.path.basename(words[0]) == "ankle_boot.png"
