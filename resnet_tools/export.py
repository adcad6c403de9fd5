"""The former address of `convert` and `Target`, kept for programs that import them from here."""

from resnet_tools.checkpoints.convert import Target, convert

__all__ = ["Target", "convert"]
