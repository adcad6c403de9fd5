"""Run the command `resnet ARGUMENTS...` until the first batch of a training is there."""

import os

from resnet_tools.__main__ import main
from resnet_tools.training.step import TrainStep

assert hasattr(TrainStep, "backward")  # noqa: S101
TrainStep.backward = lambda *_, **__: os._exit(0)
main()
os._exit(1)  # it was not called
