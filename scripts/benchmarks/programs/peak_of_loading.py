"""Print the bytes of memory that loading a checkpoint takes at most. Argument: its path."""

import sys
from pathlib import Path

from resnet_tools import load_checkpoint


def peak() -> int:
    """In bytes, since the process began or `clear_refs` was written."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


model = load_checkpoint().model  # what is imported once
Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
before = peak()
model = load_checkpoint(sys.argv[1]).model
print(peak() - before)
