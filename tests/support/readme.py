"""Puts the commands' help texts into the README: python -m tests.support.readme"""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from resnet_tools.cli import cli

README = Path(__file__).parents[2] / "README.md"


def help_text(command: str) -> str:
    done = CliRunner().invoke(cli, [command, "--help"], prog_name="resnet", terminal_width=100)
    return "\n".join(line.rstrip() for line in done.output.strip().splitlines())


def with_help(text: str) -> str:
    """The text with each block between `<!-- help: COMMAND -->` and `<!-- end -->` filled."""
    return re.sub(
        r"<!-- help: ([\w-]+) -->\n.*?<!-- end -->",
        lambda match: f"<!-- help: {match[1]} -->\n```\n{help_text(match[1])}\n```\n<!-- end -->",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    README.write_text(with_help(README.read_text()))
