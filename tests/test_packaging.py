"""What an installation brings: every asset, no tests, a command that runs anywhere, and the public names."""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import resnet_tools

ROOT = Path(__file__).parents[1]
NOT_CODE = [
    *(path for path in (ROOT / "resnet_tools" / "assets").rglob("*") if path.is_file()),
    *(ROOT / "resnet_tools" / "data").glob("*.txt"),
    ROOT / "resnet_tools" / "py.typed",
]
OUTSIDE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def python(*words: object, cwd: Path) -> str:
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=cwd, env=OUTSIDE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel that is built from the sdist that is built from a copy of the files of the package."""
    folder = tmp_path_factory.mktemp("build")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("resnet_tools", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    python("-c", "from setuptools import build_meta; build_meta.build_sdist('dist')", cwd=folder)
    [sdist] = (folder / "dist").glob("*.tar.gz")
    offline = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    python("-m", "pip", "wheel", *offline, "--wheel-dir", folder / "wheel", sdist, cwd=folder)
    [built] = (folder / "wheel").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The programs of a new environment that has the wheel, and the libraries of this one behind it."""
    folder = tmp_path_factory.mktemp("venv")
    python("-m", "venv", "--without-pip", folder, cwd=folder)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    offline = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    python("-m", "pip", "--python", programs / "python", "install", *offline, wheel, cwd=folder)
    [packages] = folder.rglob("site-packages")
    (packages / "libraries.pth").write_text("".join(f"{path}\n" for path in site.getsitepackages()))
    return programs


@pytest.mark.slow
def test_the_wheel_has_every_asset_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {path.relative_to(ROOT).as_posix() for path in NOT_CODE} <= set(names)
    code = {path.relative_to(ROOT).as_posix() for path in (ROOT / "resnet_tools").rglob("*.py")}
    assert code <= set(names)
    assert {name.split("/")[0] for name in names} == {
        "resnet_tools",
        f"resnet_tools-{resnet_tools.__version__}.dist-info",
    }
    assert not [name for name in names if "test" in name or name.endswith(".pyc")]
    assert f"resnet_tools-{resnet_tools.__version__}.dist-info/licenses/LICENSE" in names


@pytest.mark.slow
def test_the_installed_command_classifies_from_any_folder(installed, tmp_path):
    image = ROOT / "resnet_tools" / "assets" / "images" / "bag.png"
    words = [installed / "resnet", "classify", "demo", image, "--csv"]
    done = subprocess.run(words, cwd=tmp_path, env=OUTSIDE, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert ",bag," in done.stdout.splitlines()[1]


@pytest.mark.slow
def test_the_installed_package_is_the_one_that_is_imported(installed, tmp_path):
    code = "import resnet_tools; print(resnet_tools.__file__, resnet_tools.__version__)"
    words = [installed / "python", "-c", code]
    done = subprocess.run(words, cwd=tmp_path, env=OUTSIDE, capture_output=True, text=True, check=True)
    where, version = done.stdout.split()
    assert Path(where).is_relative_to(installed.parent)
    assert version == resnet_tools.__version__


def test_the_workflow_tests_the_versions_that_the_package_names():
    project = (ROOT / "pyproject.toml").read_text()
    named = re.findall(r"Python :: (3\.\d+)", project)
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text()
    [matrix] = re.findall(r"python: \[(.*)\]", workflow)
    assert matrix == ", ".join(f'"{version}"' for version in named)
    assert f'requires-python = ">={named[0]}"' in project


def test_every_public_name_is_there():
    assert {name: getattr(resnet_tools, name).__name__ for name in resnet_tools.__all__} == {
        name: {"load_model": "load_checkpoint"}.get(name, name) for name in resnet_tools.__all__
    }


def test_the_former_address_of_convert_still_works():
    from resnet_tools import export

    assert export.convert is resnet_tools.convert
    assert export.Target is resnet_tools.Target
