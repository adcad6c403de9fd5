"""The training loops that ours is measured against, each as its authors write it; (N, 3, H, W), (N,) on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Step = Callable[[Tensor, Tensor], Any]


def torchvision_step(model: nn.Module, device: torch.device) -> Step:
    """references/classification/train.py of pytorch/vision with --amp, in float16, with its metrics of every batch."""
    model = model.to(device).train()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    on_gpu = device.type == "cuda"
    scaler = torch.amp.GradScaler(device.type, enabled=on_gpu)

    def step(images: Tensor, targets: Tensor) -> float:
        with torch.amp.autocast(device.type, torch.float16 if on_gpu else torch.bfloat16):
            output = model(images)
            loss = criterion(output, targets)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        with torch.inference_mode():
            best = output.topk(5, 1).indices.t()
            correct = best.eq(targets[None])
            first, five = (correct[:k].flatten().sum(dtype=torch.float32) * (100 / len(targets)) for k in (1, 5))
        return float(loss.item()) + 0 * first.item() + 0 * five.item()

    return step


def timm_step(model: nn.Module, device: torch.device) -> Step:
    """train.py of huggingface/pytorch-image-models with --amp --channels-last."""
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.utils import NativeScaler

    model = model.to(device, memory_format=torch.channels_last).train()
    optimizer = create_optimizer_v2(model, "sgd", lr=0.1, weight_decay=1e-4, momentum=0.9)
    criterion, on_gpu = LabelSmoothingCrossEntropy(0.1), device.type == "cuda"
    scaler = NativeScaler() if on_gpu else None

    def step(images: Tensor, targets: Tensor) -> None:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.amp.autocast(device.type, torch.float16 if on_gpu else torch.bfloat16):
            loss = criterion(model(images), targets)
        if scaler is not None:
            scaler(loss, optimizer, parameters=model.parameters())
        else:
            loss.backward()
            optimizer.step()
        optimizer.zero_grad()

    return step


def tuned_step(model: nn.Module, device: torch.device) -> Step:
    """The best that fits on a page: channels last, compiled, bfloat16, fused SGD, nothing read back."""
    model = model.to(device, memory_format=torch.channels_last).train()
    compiled = torch.compile(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=1e-4, nesterov=True, fused=True)

    def step(images: Tensor, targets: Tensor) -> None:
        with torch.autocast(device.type, torch.bfloat16):
            logits = compiled(images.contiguous(memory_format=torch.channels_last))
            loss = cross_entropy(logits, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


PEERS: dict[str, tuple[Callable[[nn.Module, torch.device], Step], str | None]] = {
    "torchvision's reference loop, AMP": (torchvision_step, None),
    "timm's loop, AMP, channels last": (timm_step, "timm"),
    "the best hand-tuned loop": (tuned_step, None),
}
