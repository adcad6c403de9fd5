"""The option that selects one of several nets in a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def weights_option(function: F) -> F:
    """`--weights KEY`, given to the command as `weights`, for `load_checkpoint(path, weights=weights)`."""
    option = click.option(
        "--weights",
        metavar="KEY",
        help="Which weights to use if the file holds several, for example state_dict_ema.",
    )
    return option(function)
