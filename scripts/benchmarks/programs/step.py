"""A training step of 16 images as `resnet train` does it. Arguments: the net's name, the precision, how many steps."""

import sys

import torch
from measured_step import images, print_median, targets

from resnet_tools.compute.device import keep_freed_memory
from resnet_tools.nets.resnet import build_resnet
from resnet_tools.training.compute_config import ComputeConfig
from resnet_tools.training.recipe import make_recipe
from resnet_tools.training.step import TrainStep

name, precision, steps = sys.argv[1:]
keep_freed_memory()
config = ComputeConfig(torch.device("cpu"), precision)
train_step = TrainStep(build_resnet(name), make_recipe("original", "imagenet"), config)


def step() -> None:
    train_step.train_mode()
    counts = train_step.backward(images, targets, len(images), last=True)
    train_step.update()
    counts.read()


print_median(step, int(steps))
