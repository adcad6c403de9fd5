"""The command line: one module per command, imported only when that command runs."""

from __future__ import annotations

from importlib import import_module

import click

from resnet_tools import __version__

COMMANDS = {
    "classify": "classify",
    "extract-features": "extract_features",
    "train": "train",
    "evaluate": "evaluate",
    "plot": "plot",
    "check-data": "check_data",
    "convert": "convert",
    "verify": "verify",
    "inspect": "inspect",
    "models": "models",
}


class LazyGroup(click.Group):
    """Imports only the command that runs, so that no command waits for the imports of another."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"resnet_tools.cli.{COMMANDS[cmd_name]}").command
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="resnet")
def cli() -> None:
    """Run, fine-tune and convert the Lua Torch ResNets of fb.resnet.torch in PyTorch.

    `resnet COMMAND --help` describes a command and gives an example.

    \b
    Example: resnet classify resnet-101.t7 cat.jpg
    """
