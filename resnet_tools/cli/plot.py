"""`resnet plot`: charts of training runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from resnet_tools.history.history import HISTORY
from resnet_tools.text import printable

ENDINGS = (".gz", ".log", ".txt", ".stdout", ".csv")


@click.command(
    epilog="Example: resnet plot checkpoints old-training.log --output curves.svg",
    help="""Plot the errors and losses of one RUN by epoch, with its best epoch marked, as in the run's training.png. Of
    several RUNs, plot validation error, training error and training loss in the same charts.

    RUN is the folder of a training run, a history.csv, or a log of the original program, plain or gzip-compressed.
    Errors are in percent; dashed lines are top-5 errors.""",
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default="training.png",
    show_default=True,
    help="File to write; its extension, .png, .svg or .pdf, selects the format.",
)
def command(runs: tuple[Path, ...], output: Path) -> int:
    from resnet_tools.history.plotting import check_plotting, draw_training, plot_histories
    from resnet_tools.history.training_log import read_run

    check_plotting(output)
    histories = [read_run(run) for run in runs]
    if len(runs) == 1:
        draw_training(histories[0], output)
    else:
        plot_histories(dict(zip(_names(runs), histories, strict=True)), output)
    click.echo(f"saved charts to {printable(str(output))}")
    return 0


def _names(runs: Sequence[Path]) -> list[str]:
    """Short names, with as many parent folders as it takes to tell them apart; a run given twice gets a number."""
    keys = [_key(run) for run in runs]
    names = [_name(key, set(keys) - {key}) for key in keys]
    return [f"{name} ({place})" if names.count(name) > 1 else name for place, name in enumerate(names, 1)]


def _name(key: tuple[str, ...], others: set[tuple[str, ...]]) -> str:
    depth = next((k for k in range(1, len(key)) if all(other[-k:] != key[-k:] for other in others)), len(key))
    return "/".join(key[-depth:])


def _key(run: Path) -> tuple[str, ...]:
    """The parent folders and a short name."""
    if run.is_dir() or run.name == HISTORY:
        return (run if run.is_dir() else run.parent).resolve().parts
    name = run.name
    while name.endswith(ENDINGS):
        name = name[: name.rindex(".")]
    return (*run.resolve().parent.parts, name or run.name)
