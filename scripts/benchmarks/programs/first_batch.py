"""Run the command `resnet ARGUMENTS...` until the first batch of a training is there."""

import os

from resnet_tools.__main__ import main
from resnet_tools.training.step import TrainStep

TrainStep.backward = lambda *_, **__: os._exit(0)  # type: ignore[method-assign, assignment]
main()
