"""What the server that starts loader processes imports before it does: a start that was given up says nothing.

If the main process is stopped while one of them starts, what that one was sent is gone, and Python would print the
stack of an error about it. Where the main process is still there, it tells that the other did not start.
"""

from __future__ import annotations

import sys
from types import TracebackType


def hide_lost_start(kind: type[BaseException], error: BaseException, stack: TracebackType | None) -> None:
    """Show errors as Python does, but not that a file or the other end of a pipe is gone."""
    if not issubclass(kind, (OSError, EOFError)):
        sys.__excepthook__(kind, error, stack)


sys.excepthook = hide_lost_start
