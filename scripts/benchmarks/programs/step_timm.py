"""A training step of 16 images, eager, with timm's net and optimizer, channels last.

Arguments: the net's name there, the precision, how many steps.
"""

import contextlib
import sys

import timm
import torch
from measured_step import images, print_median, targets
from timm.optim import create_optimizer_v2

name, precision, steps = sys.argv[1:]
net = timm.create_model(name).train().to(memory_format=torch.channels_last)
optimizer = create_optimizer_v2(net, "sgd", lr=0.1, weight_decay=1e-4, momentum=0.9)
images = images.contiguous(memory_format=torch.channels_last)
amp = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def step() -> None:
    optimizer.zero_grad()
    with amp:
        loss = torch.nn.functional.cross_entropy(net(images), targets)
    loss.backward()
    optimizer.step()
    loss.item()


print_median(step, int(steps))
