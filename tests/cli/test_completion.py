"""A shell completes commands, options, choices and names of files; nothing that computes is imported for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_tools.__main__ import run
from resnet_tools.cli import COMMANDS

ROOT = Path(__file__).parents[2]


def completed(words: str, monkeypatch, capsys, shell: str = "bash") -> list[str]:
    """What is offered for the last of the words."""
    count = len(words.split(" "))
    monkeypatch.setenv("_RESNET_COMPLETE", f"{shell}_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", words.split(" ")[-1] if shell == "fish" else str(count - 1))
    assert run([]) == 0
    found = capsys.readouterr()
    assert found.err == ""
    return found.out.splitlines()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("resnet ", [f"plain,{name}" for name in COMMANDS]),
        ("resnet c", ["plain,classify", "plain,check-data", "plain,convert"]),
        ("resnet nonsense m", ["plain,map", "plain,models"]),  # nothing can follow that
        ("resnet --v", ["plain,--version"]),
        ("resnet classify --eng", ["plain,--engine"]),
        ("resnet train --early", ["plain,--early-stop"]),
        ("resnet classify demo --engine o", ["plain,onnxruntime", "plain,openvino"]),
        ("resnet train --recipe ", ["plain,original", "plain,finetune", "plain,modern"]),
        ("resnet train -nGPU 2 -netType resnet --recipe m", ["plain,modern"]),  # as the original's options are written
        ("resnet train -nGPU two words --recipe m", ["plain,modern"]),
        ("resnet classify de", ["file,de"]),
        ("resnet classify demo pho", ["file,pho"]),
        ("resnet classify demo cat.jpg pho", ["file,pho"]),
        ("resnet evaluate one.t7 tw", ["file,tw"]),
        ("resnet train --retrain runs/", ["file,runs/"]),
        ("resnet train --data photos --cache c", ["dir,c"]),
        ("resnet verify a.t7 b.onnx --images p", ["file,p"]),
    ],
)
def test_what_is_offered(words, expected, monkeypatch, capsys):
    assert completed(words, monkeypatch, capsys) == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_zsh_and_fish_also_show_what_a_command_does(shell, monkeypatch, capsys):
    offered = "\n".join(completed("resnet pl", monkeypatch, capsys, shell))
    assert re.fullmatch(rf"plain\W+plot\W+{re.escape(COMMANDS['plot'])}", offered)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell, monkeypatch, capsys):
    monkeypatch.setenv("_RESNET_COMPLETE", f"{shell}_source")
    assert run([]) == 0
    script = capsys.readouterr().out
    assert f"_RESNET_COMPLETE={shell}_complete" in script
    assert "_resnet_completion" in script


@pytest.mark.parametrize("asked", ["tcsh_source", "bash", "bash_complete"])  # the last without a line to complete
def test_what_no_shell_asks_for_is_an_error_that_says_what_to_ask_for(asked, monkeypatch, capsys):
    monkeypatch.setenv("_RESNET_COMPLETE", asked)
    assert run([]) == 2
    assert f"_RESNET_COMPLETE is '{asked}'; expected bash_source, zsh_source" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_after_the_line_in_the_readme(tmp_path):
    (tmp_path / "resnet").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m resnet_tools "$@"\n')
    (tmp_path / "resnet").chmod(0o755)
    [line] = [text for text in (ROOT / "README.md").read_text().splitlines() if "_RESNET_COMPLETE" in text]
    [command] = [part for part in line.split("`") if "_RESNET_COMPLETE" in part]
    script = f"{command}; COMP_WORDS=(resnet convert --lay); COMP_CWORD=2; _resnet_completion resnet; echo $COMPREPLY"
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("--layout\n", "")


@pytest.mark.parametrize("words", ["resnet ", "resnet train --recipe ", "resnet classify demo pho"])
def test_completing_imports_nothing_that_computes(words):
    script = (
        "import sys\nfrom resnet_tools.__main__ import run\ncode = run([])\n"
        "sys.exit(str({'torch', 'numpy', 'onnxruntime', 'PIL'} & set(sys.modules) or '') or code)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "_RESNET_COMPLETE": "bash_complete"}
    environment |= {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_help_does_not_load_what_only_completion_needs():
    script = (
        "import sys\nfrom resnet_tools.__main__ import run\nrun(['train', '--help'])\n"
        "sys.exit('click.shell_completion' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
