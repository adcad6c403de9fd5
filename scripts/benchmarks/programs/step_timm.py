"""A training step of 16 images, eager, with timm's net and torch's fused SGD, channels last.

Arguments: the net's name there, the precision, how many steps.
"""

import contextlib
import sys

import timm
import torch
from measured_step import images, print_median, targets

name, precision, steps = sys.argv[1:]
net = timm.create_model(name).train().to(memory_format=torch.channels_last)
optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=1e-4, nesterov=True, fused=True)
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
