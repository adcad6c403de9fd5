"""A few small images that come with the package."""

from __future__ import annotations

from resnet_tools.checkpoints.model_files import DEMO_PATH

PHOTOS = [str(path) for path in sorted((DEMO_PATH.parent / "images").glob("*.png"))]
