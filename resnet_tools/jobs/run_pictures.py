"""The pictures that a training leaves in its folder. One that fails is a warning and fails nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from resnet_tools.errors import Note, ResnetToolsError
from resnet_tools.evaluation.options import PAGE
from resnet_tools.history.plotting import check_plotting
from resnet_tools.text import printable
from resnet_tools.training.compute_config import ComputeConfig
from resnet_tools.training.options import TrainOptions
from resnet_tools.training.pictures import REPORT, draw_curves, draw_views, report_best_net
from resnet_tools.training.run import RunData
from resnet_tools.training.start import Start

HINT = "charts of the training and a report of its best net need matplotlib: pip install 'resnet_tools[plot]'"


class RunPictures:
    """`begin` before the first epoch, `end` after the last, in the first process. `drawn`: the files to look at.

    What could not be drawn, and why, is a warning. watched: gives what is called with the images that the report has
    seen.
    """

    def __init__(
        self,
        options: TrainOptions,
        start: Start,
        data: RunData,
        config: ComputeConfig,
        watched: Callable[[], AbstractContextManager[Callable[[int, list[str]], None]]],
    ) -> None:
        self.options, self.start, self.data, self.device = options, start, data, config.device
        self.begun_after = start.state.epoch
        self.wanted = start.state.recipe.name != "original" if options.report is None else options.report
        self.watched = watched
        self.drawn: list[Path] = []

    def begin(self) -> None:
        """The training images as the net sees them."""
        if not self.wanted or self.start.state.epoch >= self.start.state.recipe.epochs:
            return
        self._draw("the training images", lambda: draw_views(self.data, self.start.state, self.options.save_folder))

    def end(self) -> None:
        """Curves, and the report of the best net on the validation images."""
        folder, state = self.options.save_folder, self.start.state
        is_done = state.epoch == self.begun_after and (folder / REPORT / PAGE).exists()
        if is_done or not self._can_draw():
            return
        self._draw("the curves", lambda: draw_curves(state.history, folder))
        self.report()

    def report(self) -> None:
        """The report of the best net on the validation images."""
        folder = self.options.save_folder
        if not self._can_draw():
            return
        with self.watched() as progress:
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
        """Whether pictures are wanted and matplotlib is installed; a hint is given if it is not."""
        if not self.wanted:
            return False
        try:
            check_plotting()
        except ResnetToolsError:
            warnings.warn(HINT, Note, stacklevel=2)
            return False
        return True

    def _draw(self, what: str, draw: Callable[[], list[Path]]) -> None:
        try:
            self.drawn += draw()
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            warnings.warn(f"{what} could not be drawn: {printable(reason):.300}", stacklevel=2)
