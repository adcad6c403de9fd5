"""A command in a process of its own -> rows, as they come; whatever becomes of it, its caller goes on.

The command writes each row as a line of JSON to the file that $RESNET_TOOLS_ROWS names.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.1
SHOWN_CHARACTERS = 1500
END_SECONDS = 10  # for a process to end that was killed: one that waits for a driver may not


class ChildFailed(Exception):
    """It ended badly, or took too long; the message has the end of what it printed."""


def rows_of(
    words: Sequence[object], folder: Path, *, seconds: float, silence: float = float("inf"), **variables: str
) -> Iterator[dict[str, Any]]:
    """The rows that a command writes. It ends, with all that it started, after `seconds`, or `silence` without a row.

    folder: where it runs. variables: of its environment. Raises: ChildFailed, after the rows that were there.
    """
    with tempfile.TemporaryDirectory() as kept:
        rows, printed = Path(kept, "rows"), Path(kept, "printed")
        rows.touch()
        with printed.open("wb") as output, rows.open() as lines:
            child = subprocess.Popen(
                [*map(str, words)],
                cwd=folder,
                env={**os.environ, **variables, "RESNET_TOOLS_ROWS": str(rows)},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                yield from _written(child, lines, seconds, silence)
                if child.returncode:
                    raise ChildFailed(_how_it_ended(child.returncode))
            except ChildFailed as error:
                text = printed.read_text(errors="replace").strip()
                raise ChildFailed(f"{error}; {text[-SHOWN_CHARACTERS:]}" if text else str(error)) from None
            finally:
                _end(child)


def _written(child: subprocess.Popen[bytes], lines: Any, seconds: float, silence: float) -> Iterator[dict[str, Any]]:
    begun = heard = time.monotonic()
    part = ""
    while True:
        has_ended = child.poll() is not None  # looked at before the rows, so that none is missed
        while line := lines.readline():
            part += line
            if part.endswith("\n"):
                heard = time.monotonic()
                yield json.loads(part)
                part = ""
        if has_ended:
            return
        now = time.monotonic()
        if now > begun + seconds or now > heard + silence:
            limit = seconds if now > begun + seconds else silence
            raise ChildFailed(f"took more than {limit:.0f} seconds")
        time.sleep(POLL_SECONDS)


def _how_it_ended(code: int) -> str:
    names = {each.value: each.name for each in signal.Signals}
    return f"killed by {names.get(-code, -code)}" if code < 0 else f"exit code {code}"


def _end(child: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        child.wait(END_SECONDS)
