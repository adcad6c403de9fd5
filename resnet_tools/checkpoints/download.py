"""A name or an address -> a file with the model that it promises, or no file at all.

A published name (`resnet-50.t7`) promises the net that was published under it. The file name at any other address
promises the depth that it has in it (`resnet50-v2.pth`), or else a net that can be loaded.
What is fetched lies in the folder `.NAME.download` beside NAME until it is whole and recognised, see transfer.py.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from resnet_tools.checkpoints.checkpoint import load_checkpoint
from resnet_tools.checkpoints.transfer import NotServedError, Report, checked_address, forget, is_begun, transfer
from resnet_tools.errors import DownloadError, ResnetToolsError
from resnet_tools.locking import locked_folder
from resnet_tools.nets.architecture import Architecture
from resnet_tools.nets.catalog import (
    PUBLISHED_AT,
    PublishedCheckpoint,
    describe,
    download_advice,
    is_same_net,
    published_checkpoint,
)
from resnet_tools.text import printable
from resnet_tools.writing import check_target, written_whole

DEPTH = re.compile(r"res(?:net|next)[-_]?(18|20|32|34|44|50|56|101|110|152|200|1202)(?!\d)", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """Where a model is, the name of its file, and what this name promises."""

    address: str
    file: str
    published: PublishedCheckpoint | None = None
    depth: int | None = None


@dataclass(frozen=True)
class Downloaded:
    """`was_there`: the file lay there already and is the net that was asked for."""

    path: Path
    architecture: Architecture
    was_there: bool


def find_source(name: str) -> Source:
    """What `resnet-50.t7`, `resnet-50` or an address stands for. Raises: DownloadError if it is neither."""
    published = published_checkpoint(name)
    if published is not None:
        return Source(published.address, published.file, published)
    if "://" not in name:
        raise DownloadError(f"{name}: neither a published file nor an address. {download_advice(name)}")
    file = unquote(checked_address(name).path.rpartition("/")[2])
    if printable(file) != file or "/" in file or "\\" in file or len(os.fsencode(file)) > 200 or file.startswith("."):
        file = ""  # no name for a file; --output gives one
    depth = DEPTH.search(file)
    return Source(name, file, None, int(depth[1]) if depth else None)


def target_of(source: Source, output: Path | None) -> Path:
    """Where the file goes: `output`, or into it if it is a folder. Raises: DownloadError if nothing names it."""
    if output is not None and not output.is_dir():
        return output
    if not source.file:
        raise DownloadError(
            f"{source.address}: the address does not end with the name of a file; give one with --output"
        )
    return Path(source.file) if output is None else output / source.file


def download(source: Source, target: Path, report: Report, *, force: bool = False) -> Downloaded:
    """Fetch the model, and keep it as `target` if it is the net that its name promises.

    report: called with the number of bytes so far and of all, if the server says it.
    Raises: DownloadError saying what to do; the target is as it was then, and an unfinished part is kept.
    """
    try:
        check_target(target)
        target = Path(os.path.realpath(target))  # a link stays a link
        if target.exists() and not force:
            return _already_there(source, target)
        folder = target.with_name(f".{target.name}.download")
        folder.mkdir(exist_ok=True)
        try:
            with locked_folder(folder):
                architecture = _fetch(source, folder, target, report)
        finally:
            if not is_begun(folder):
                shutil.rmtree(folder, ignore_errors=True)
        return Downloaded(target, architecture, was_there=False)
    except OSError as error:
        raise DownloadError(f"{target}: cannot be written: {error.strerror or error}") from error


def _already_there(source: Source, target: Path) -> Downloaded:
    advice = "--force replaces it, --output gives another name"
    if source.published is None:
        raise DownloadError(f"{target}: already exists; {advice}")
    try:
        return Downloaded(target, _recognised(target, source), was_there=True)
    except ResnetToolsError as error:
        raise DownloadError(f"{target}: already exists and is not what was asked for ({error}); {advice}") from error


def _fetch(source: Source, folder: Path, target: Path, report: Report) -> Architecture:
    try:
        part, resumed = transfer(source.address, folder, report)
    except NotServedError as error:
        raise DownloadError(f"{error}{_advice(source)}") from error
    try:
        architecture = _recognised(part, source)
    except ResnetToolsError as error:
        forget(folder)
        if resumed:  # its first bytes were those of another file
            return _fetch(source, folder, target, report)
        text = str(error).removeprefix(f"{part}: ").replace(str(part), "FILE")
        raise DownloadError(f"{source.address}: nothing is kept, as it is not the model: {text}") from error
    with written_whole(target) as partial:
        os.replace(part, partial)
    return architecture


def _recognised(path: Path, source: Source) -> Architecture:
    """The architecture of the file, if it is the one that was promised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # who uses the file is told
        found = load_checkpoint(path).architecture
    if source.published is not None and not is_same_net(found, source.published):
        raise DownloadError(f"it is {describe(found)}; expected {describe(source.published.architecture)}")
    if source.depth is not None and found.depth != source.depth:
        raise DownloadError(f"it is {describe(found)}; the file's name promises depth {source.depth}")
    return found


def _advice(source: Source) -> str:
    """What else to try where a server does not give the file."""
    if source.published is None:
        return ""
    return (
        f". The files were published in 2016, at {PUBLISHED_AT}, and their address may be dead. If so, get a copy from "
        f"someone who has the file: `resnet download https://HOST/{source.file}` fetches it from any address and "
        "checks it"
    )
