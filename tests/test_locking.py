"""One writer in a folder: also among processes, without fcntl, and on file systems without locks."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_tools.errors import LockedError
from resnet_tools.locking import locked_folder

HOLD = """
import sys
if "hidden" in sys.argv:
    sys.modules["fcntl"] = None  # as on Windows
from pathlib import Path
from resnet_tools.locking import locked_folder
with locked_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", HOLD, str(folder), *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("arguments", "ends"), [((), ("close", "kill")), (("hidden",), ("close",))])
def test_a_second_process_is_refused_until_the_first_ends_or_dies(tmp_path, arguments, ends):
    for end in ends:
        with holder(tmp_path, *arguments) as first:
            assert first.stdout is not None
            assert first.stdout.readline() == "held\n"
            with holder(tmp_path, *arguments) as second:
                _, errors = second.communicate("")
                assert f"LockedError: {tmp_path}: another run is writing here" in errors
            if end == "kill":
                first.kill()
            _, errors = first.communicate()
            assert errors == ""
    with holder(tmp_path, *arguments) as last:
        out, errors = last.communicate("")
        assert (out, errors) == ("held\n", "")


def test_a_second_part_of_the_same_process_is_refused_and_the_lock_ends_with_its_block(tmp_path):
    for _ in range(2):
        refused = pytest.raises(LockedError, match="another run is writing")
        with locked_folder(tmp_path), refused, locked_folder(tmp_path):
            raise AssertionError("two writers")


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_lets_everyone_in(tmp_path, monkeypatch, code):
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(code, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    entered = False
    with locked_folder(tmp_path):
        entered = True
    assert entered


def test_a_folder_that_cannot_be_written_is_no_folder_without_locks(tmp_path):
    with pytest.raises(OSError, match="No such file"), locked_folder(tmp_path / "none"):
        raise AssertionError("entered")
