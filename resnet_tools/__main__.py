"""`resnet` and `python -m resnet_tools`: runs a command, turning errors into one line and an exit code."""

from __future__ import annotations

import io
import os
import signal
import sys

import click

from resnet_tools.cli import cli
from resnet_tools.cli.shared.notices import show_own_warnings_as_lines
from resnet_tools.errors import ResnetToolsError, Terminated
from resnet_tools.text import OUTPUT_ERRORS, printable

COMPLETE = "_RESNET_COMPLETE"  # where a shell says that it completes words
INTERRUPTED = 130  # as a shell reports a process that SIGINT ended


def main() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115 (open until the end; it was closed for us)
        setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper):  # labels are UTF-8, and file names need not be text
            stream.reconfigure(encoding="utf-8", errors=OUTPUT_ERRORS)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # The shell of a script starts what it puts in the background so. It can be stopped by SIGINT all the same; a
        # SIGHUP that nohup has us ignore stays ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    show_own_warnings_as_lines(os.path.dirname(os.path.abspath(__file__)))
    code = run(sys.argv[1:])
    if "numpy" not in sys.modules:
        sys.exit(code)
    # Tearing down torch takes most of a second, and waiting for the threads of NumPy 1.26's OpenBLAS may never end.
    # Everything that we write is flushed and closed by now.
    os._exit(code)


def run(arguments: list[str]) -> int:
    """The exit code of a command: 0, 1 for an error in a file, 2 for a wrong command line, 75 if another process of
    the job ended, 129 if the terminal was lost, 130 if interrupted, 143 if terminated."""
    try:
        if instruction := os.environ.get(COMPLETE):
            return _completed(instruction)
        if "" in arguments:  # such as that of a variable of the shell that is not set
            raise click.UsageError(f"argument {arguments.index('') + 1} ({_before_empty(arguments)}) is empty")
        with cli.make_context("resnet", arguments) as context:
            result = cli.invoke(context)
        code = result if isinstance(result, int) else 0
        sys.stdout.flush()
    except click.exceptions.Exit as end:  # --help and --version
        code = end.exit_code
    except click.ClickException as error:
        from resnet_tools.cli.shared.options import UsageErrors

        shown = io.StringIO()
        error.show(file=shown)
        message = error.format_message()
        escaped = printable(message, lines=isinstance(error, UsageErrors))  # else a newline in it is a name's
        told = shown.getvalue().replace(click.unstyle(message), escaped)  # click leaves out colours
        click.echo(printable(told, lines=True), err=True, nl=False)
        code = error.exit_code
    except ResnetToolsError as error:
        messages = "\n".join(printable(str(message)) for message in error.args)
        click.echo(f"Error: {messages}", err=True)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        code = INTERRUPTED
    except Terminated as stop:
        code = stop.exit_code
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:  # such as a full disk behind our output
        where = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else "the output"
        click.echo(f"Error: {printable(where)}: {error.strerror or error}", err=True)
        code = 1
    except (ImportError, MemoryError) as error:
        reason = printable(str(error)) or type(error).__name__
        click.echo(
            f"Error: PyTorch or a package that it needs cannot be loaded: {reason}. Is there enough memory "
            "(`ulimit -v`), and is the installation whole (`pip check`)?",
            err=True,
        )
        code = 1
    return code


def _completed(instruction: str) -> int:
    """Print the script that makes a shell complete the words of our command lines, or what it completes them to."""
    from click.shell_completion import shell_complete

    try:
        code: int = shell_complete(cli, {}, "resnet", COMPLETE, instruction)
    except (KeyError, ValueError):  # the variables that the shell's script sets
        code = 1
    if code:
        expected = "bash_source, zsh_source or fish_source, whose output the shell then runs"
        raise click.UsageError(f"{COMPLETE} is {instruction!r:.40}; expected {expected}")
    return 0


def _before_empty(arguments: list[str]) -> str:
    """Where the empty one stands."""
    at = arguments.index("")
    return f"after {arguments[at - 1]}" if at else "the first"


if __name__ == "__main__":
    main()
