"""What the Markdown files show: commands, code, links, trees; and a folder in which the README's commands can run."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
LAYOUT = ROOT / "resnet_tools" / "README.md"


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks that are marked with a language; the mark may be empty."""
    return [
        body for mark, body in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE) if mark == language
    ]


def commands(text: str) -> list[list[str]]:
    """The command lines of the `sh` blocks in their order, as words, without the comments behind them."""
    lines = "".join(blocks(text, "sh")).splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def code_spans(text: str) -> list[str]:
    """What stands between single backticks in running text, also across the end of a line."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", outside)]


def links(text: str) -> list[str]:
    """The targets of links and pictures that are files of the repository."""
    return [target for target in re.findall(r"\]\(([^)#\s]+)\)", text) if "://" not in target]


def fill_working_folder(folder: Path) -> None:
    """Every file that the README's commands name, small: the demo's net, images and class folders."""
    assets = ROOT / "resnet_tools" / "assets"
    for name in ("resnet_tools", "tests"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("resnet-18.t7", "resnet-50.t7", "resnet-101.t7"):
        shutil.copy(assets / "fashion-resnet-18.t7", folder / name)
    Image.open(assets / "images" / "bag.png").convert("RGB").save(folder / "cat.jpg")
    shutil.copy(ROOT / "tests" / "data" / "evaluation" / "main_finetune.stdout", folder / "old-training.log")
    for split, count in (("train", 4), ("val", 2)):
        for label in ("3", "7"):
            (folder / "photos" / split / label).mkdir(parents=True)
            for image in sorted((assets / "digits" / split / label).iterdir())[:count]:
                shutil.copy(image, folder / "photos" / split / label)
    for image in sorted((assets / "images").iterdir()):
        (folder / "imagenet" / "val" / image.stem).mkdir(parents=True)
        shutil.copy(image, folder / "imagenet" / "val" / image.stem)


def paths_in_tree(tree: str) -> set[str]:
    """The paths in a tree of files: two spaces a level below the first line, names before a gap, folders end in /."""
    paths, folders = set(), []
    for line in tree.splitlines()[1:]:
        level = (len(line) - len(line.lstrip())) // 2 - 1
        for name in re.split(r" {2,}", line.strip())[0].split(", "):
            paths.add("".join(folders[:level]) + name)
            if name.endswith("/"):
                folders[level:] = [name]
    return paths
