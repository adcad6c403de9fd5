"""The command line: one module per command, imported only when that command runs."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

import click

from resnet_tools import __version__
from resnet_tools.cli.shared.notices import say
from resnet_tools.text import printable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {  # name -> its line in the help, which therefore imports no command
    "classify": "Print the most probable labels of images.",
    "extract-features": "Write a row of features for each image.",
    "train": "Fine-tune a net, or train a new one.",
    "evaluate": "Print the top-1 and top-5 error on labelled images.",
    "plot": "Plot the error and loss of training runs by epoch.",
    "similar": "Find the images that are most similar to others.",
    "map": "Draw the images of a features file as a map.",
    "check-data": "Check a folder of images before training.",
    "convert": "Convert a checkpoint to another format and verify it.",
    "verify": "Compare what two checkpoints compute.",
    "inspect": "Show what a file is and which net it holds.",
    "models": "List the published checkpoints and the architectures.",
    "download": "Fetch a published checkpoint, or one at an https address.",
}
LUA_SCRIPTS = {"main.lua": "train", "classify.lua": "classify", "extract-features.lua": "extract-features"}


class LazyGroup(click.Group):
    """Imports only the command that runs, so that no command waits for the imports of another, and gives it its
    arguments in GNU style, whichever way they were written."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"resnet_tools.cli.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # a shell completes the line
            return super().parse_args(ctx, args)
        if not args:  # click would raise its help as an error, whose newlines are escaped as those of a name are
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        own = [name for option in self.get_params(ctx) for name in option.opts]
        if args and args[0] not in own and _is_far_from(own, args[0]):
            ctx.fail(f"No such option: {args[0]}. Options go after the command: resnet train {args[0]} ...")
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from resnet_tools.cli.lua_options import gnu_arguments, spellings

        name = args[0]
        command = self.get_command(ctx, name)
        if command is None:
            if ctx.resilient_parsing:
                return None, None, []
            ctx.fail(f"No such command {printable(name)!r}.{_suggestion(name)}")
        own = click.Context(command, parent=ctx, info_name=name)
        try:
            arguments, notes = gnu_arguments(args[1:], spellings(command.get_params(own), trains=name == "train"))
        except click.UsageError as error:
            if ctx.resilient_parsing:
                return name, command, args[1:]
            error.ctx = own
            raise
        if "LOCAL_RANK" not in os.environ and not ctx.resilient_parsing:  # the processes of a job would all say it
            for note in notes:
                say(note)
        return name, command, arguments


def _is_far_from(own: list[str], word: str) -> bool:
    """Whether it is an option, and no misspelling of one of these."""
    from difflib import get_close_matches

    from resnet_tools.cli.lua_options import WORD

    return WORD.fullmatch(word) is not None and not get_close_matches(word, own)


def _suggestion(name: str) -> str:
    from difflib import get_close_matches

    if name in LUA_SCRIPTS:
        return f" The original's {name} is `resnet {LUA_SCRIPTS[name]}`."
    alike = get_close_matches(name.lower().replace("_", "-"), COMMANDS)
    # `map` is the module of a command here as soon as that has been imported.
    return f" Did you mean {' or '.join(repr(name) for name in alike)}?" if alike else ""


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="resnet")
def cli() -> None:
    """Run, fine-tune and convert the Lua Torch ResNets of fb.resnet.torch in PyTorch.

    `resnet COMMAND --help` describes a command and gives an example.

    \b
    Example: resnet classify resnet-101.t7 cat.jpg
    """
