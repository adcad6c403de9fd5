"""Warnings and notes -> one line each on stderr."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from resnet_tools.errors import Note
from resnet_tools.text import printable


@contextmanager
def warnings_as_lines(*, quiet: bool = False) -> Iterator[None]:
    """Show each warning as one line; with `quiet` show none, because another process does."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if not quiet:
            say(str(message), category)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.simplefilter("ignore", DeprecationWarning)  # what one library tells the programmers of another
        warnings.showwarning = show
        yield


def show_own_warnings_as_lines(package: str) -> None:
    """Show the warnings of the code in that folder as one line without the place in the code, from now on."""
    original = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], filename: str, *rest: Any, **options: Any) -> None:
        if filename.startswith(package):
            say(str(message), category)
        else:
            original(message, category, filename, *rest, **options)

    warnings.showwarning = show


def say(text: str, category: type[Warning] = Note, *, before: str = "") -> None:
    """A note, or a warning, as a line on stderr. before: what clears the line there."""
    kind = "Note" if issubclass(category, Note) else "Warning"
    click.echo(f"{before}{kind}: {printable(text)}", err=True)
