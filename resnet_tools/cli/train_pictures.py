"""The pictures that `resnet train` leaves in the folder of a run. One that fails is told and fails nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from resnet_tools.cli.shared.running import progress_bar
from resnet_tools.text import printable

if TYPE_CHECKING:
    from resnet_tools.training.compute_config import ComputeConfig
    from resnet_tools.training.options import TrainOptions
    from resnet_tools.training.run import RunData
    from resnet_tools.training.start import Start

REPORT, PAGE = "report", "index.html"
HINT = "Charts of the training and a report of its best net need matplotlib: pip install 'resnet_tools[plot]'"


class RunPictures:
    """`begin` before the first epoch, `end` after the last, in the first process. `drawn`: the files to look at."""

    def __init__(self, options: TrainOptions, start: Start, data: RunData, config: ComputeConfig) -> None:
        self.options, self.start, self.data, self.device = options, start, data, config.device
        self.begun_after = start.state.epoch
        self.wanted = start.state.recipe.name != "original" if options.report is None else options.report
        self.drawn: list[Path] = []

    def begin(self) -> None:
        """The training images as the net sees them."""
        if not self.wanted or self.start.state.epoch >= self.start.state.recipe.epochs:
            return
        from resnet_tools.training.pictures import draw_views

        self._draw("the training images", lambda: draw_views(self.data, self.start.state, self.options.save_folder))

    def end(self) -> None:
        """Curves, and the report of the best net on the validation images."""
        folder, state = self.options.save_folder, self.start.state
        is_done = state.epoch == self.begun_after and (folder / REPORT / PAGE).exists()
        if is_done or not self._can_draw():
            return
        from resnet_tools.training.pictures import draw_curves

        self._draw("the curves", lambda: draw_curves(state.history, folder))
        self.report()

    def report(self) -> None:
        """The report of the best net on the validation images."""
        folder = self.options.save_folder
        if not self._can_draw():
            return
        from resnet_tools.training.pictures import report_best_net

        with progress_bar(len(self.data.val), "report", quiet=self.options.quiet) as progress:
            self._draw(
                "the report",
                lambda: report_best_net(
                    self.data,
                    folder,
                    self.options.data,
                    self.device,
                    lambda images, _: progress(images, []),  # what cannot be read was listed before
                ),
            )

    def _can_draw(self) -> bool:
        """Whether pictures are wanted and matplotlib is there; if not, it is told."""
        if not self.wanted:
            return False
        from resnet_tools.errors import ResnetToolsError
        from resnet_tools.history.plotting import check_plotting

        try:
            check_plotting()
        except ResnetToolsError:
            click.echo(HINT, err=True)
            return False
        return True

    def _draw(self, what: str, draw: Callable[[], list[Path]]) -> None:
        try:
            self.drawn += draw()
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            click.echo(f"Warning: {what} could not be drawn: {printable(reason):.300}", err=True)
