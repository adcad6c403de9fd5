"""How `resnet train` tells of the pictures that it leaves in the folder of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_tools.cli.shared.running import progress_bar

if TYPE_CHECKING:
    from resnet_tools.jobs.run_pictures import RunPictures
    from resnet_tools.training.compute_config import ComputeConfig
    from resnet_tools.training.options import TrainOptions
    from resnet_tools.training.run import RunData
    from resnet_tools.training.start import Start


def run_pictures(options: TrainOptions, start: Start, data: RunData, config: ComputeConfig) -> RunPictures:
    """The report has a progress bar."""
    from resnet_tools.jobs.run_pictures import RunPictures

    return RunPictures(options, start, data, config, lambda: progress_bar(len(data.val), "report", quiet=options.quiet))
