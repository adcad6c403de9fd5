"""`resnet plot`: charts of trainings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

HISTORY = "history.csv"
ENDINGS = (".gz", ".log", ".txt", ".stdout", ".csv")


@click.command(
    epilog="Example: resnet plot checkpoints old-training.log --output curves.svg",
    short_help="Draw the error and loss of trainings by epoch.",
    help="""Draw validation error, training error and training loss by epoch, all RUNs in one picture.

    RUN is the folder of a training, which holds history.csv, or such a file, or what the original program printed,
    also packed with gzip. In percent; top-5 errors are dashed.""",
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default="training.png",
    show_default=True,
    help="The ending says the format: .png .svg",
)
def command(runs: tuple[Path, ...], output: Path) -> int:
    from resnet_tools.history.plotting import check_plotting, plot_histories
    from resnet_tools.history.training_log import read_run

    check_plotting(output)
    histories = [read_run(run) for run in runs]
    plot_histories(dict(zip(_names(runs), histories, strict=True)), output)
    click.echo(f"saved charts to {output}")
    return 0


def _names(runs: Sequence[Path]) -> list[str]:
    """Short names, each with as many of the folders above as tell it apart; the same run twice has a number."""
    keys = [_key(run) for run in runs]
    names = [_name(key, set(keys) - {key}) for key in keys]
    return [f"{name} ({place})" if names.count(name) > 1 else name for place, name in enumerate(names, 1)]


def _name(key: tuple[str, ...], others: set[tuple[str, ...]]) -> str:
    depth = next((k for k in range(1, len(key)) if all(other[-k:] != key[-k:] for other in others)), len(key))
    return "/".join(key[-depth:])


def _key(run: Path) -> tuple[str, ...]:
    """The folders above and a short name."""
    if run.is_dir() or run.name == HISTORY:
        return (run if run.is_dir() else run.parent).resolve().parts
    name = run.name
    while name.endswith(ENDINGS):
        name = name[: name.rindex(".")]
    return (*run.resolve().parent.parts, name or run.name)
