"""One image and a net -> where in the image each label comes from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from resnet_tools.compute.activation_maps import ActivationMaps, activation_maps_of
from resnet_tools.compute.device import kept_settings
from resnet_tools.compute.inference import NOT_FINITE
from resnet_tools.data.transforms import preprocess
from resnet_tools.errors import ImageError, NotFiniteError
from resnet_tools.jobs.images import given_images
from resnet_tools.jobs.nets import GivenNet, given_classifier
from resnet_tools.jobs.running import Running, require_whole


def activation_maps(
    image: Any,
    checkpoint: GivenNet = "demo",
    top_k: int = 5,
    *,
    weights: str | None = None,
    device: str | int | torch.device = "auto",
    resize_px: int | None = None,
    crop_px: int | None = None,
    exif_orientation: bool | None = None,
) -> ActivationMaps:
    """Where in an image its `top_k` most probable labels come from: class activation maps.

    image: one image in any form that `classify` takes. The other arguments are as there.
    Returns: `indices`, `probabilities`, `logits` and `biases` of the labels, the best first, and `maps`, (top_k, h, w)
    float32, over the image as it was cropped: what each place adds to the logit. The mean of a map is exactly its logit
    less its bias. `resnet classify --explain` draws them.
    Raises: ImageError; CheckpointError for a net without a classifier, or an .onnx, which does not give feature maps.

    >>> from resnet_tools import activation_maps
    >>> found = activation_maps("resnet_tools/assets/images/bag.png", top_k=2)
    >>> found.maps.shape, bool(abs(found.maps[0].mean() - (found.logits[0] - found.biases[0])) < 1e-4)
    ((2, 7, 7), True)
    """
    require_whole("top_k", top_k, 1)
    running = Running(None, device, "torch", "single", resize_px, crop_px, False, exif_orientation)
    with kept_settings():
        classifier = given_classifier(checkpoint, running, weights=weights)
        preprocessing = running.loading(classifier.preprocessing).preprocessing
        given = given_images(image, exif=preprocessing.exif_orientation)
        if not given.single:
            raise ImageError(f"{len(given.names)} images are given; expected one")
        net: Any = classifier.net
        [maps] = activation_maps_of(net, preprocess(given.sources[0], preprocessing)[None], top_k)
    if not np.isfinite(maps.logits).all():
        raise NotFiniteError(f"{given.names[0]}: {NOT_FINITE}")
    return maps
