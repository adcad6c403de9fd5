"""Faults put into the code on purpose, and the tests that must fail for each: else the harness would be no use.

Each is tried on a copy of the project. The table in README.md beside this is made of this one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("resnet_tools", "tests", "pyproject.toml")


@dataclass(frozen=True)
class Break:
    """In `file`, `old` becomes `new`; `test` is what pytest is given, and must fail."""

    what: str
    file: str
    old: str
    new: str
    test: str


CRASH_FILE = "tests/hardening/test_crash_points.py"
CRASH_POINTS = f"{CRASH_FILE}::test_work_goes_on_after_a_stop_at_every_point"
WRITTEN = "        os.replace(partial, path)\n        _sync_folder(path.parent)\n"  # the end of `written_whole`
BREAKS = (
    Break(
        "a file takes its name before its bytes are on the disk (a missing fsync)",
        "writing.py",
        f"            os.fsync(file.fileno())\n{WRITTEN}",
        f"            pass\n{WRITTEN}",
        f"{CRASH_POINTS}[train]",
    ),
    Break(
        "a copy in the cache takes its name before its bytes are on the disk",
        "writing.py",
        "            file.flush()\n            os.fsync(file.fileno())\n",
        "            file.flush()\n",
        f"{CRASH_FILE}::test_a_cache_is_whole_after_a_stop_at_every_point_and_its_images_are_the_same",
    ),
    Break(
        "the checksum of a copy in the cache is not compared",
        "data/photo_cache.py",
        "content[:DIGEST_BYTES] != _digest(name, rest) or ",
        "",
        "tests/data/test_photo_cache.py",
    ),
    Break(
        "a partial file is left behind after an error",
        "writing.py",
        f"{WRITTEN}    finally:\n        partial.unlink(missing_ok=True)\n",
        f"{WRITTEN}    finally:\n        pass\n",
        "tests/features/test_files.py::test_a_disk_that_is_full_is_an_error_and_the_earlier_files_stay",
    ),
    Break(
        "the sum of a batch is not compared when work goes on",
        "features/store.py",
        "                if len(content) < size or zlib.crc32(content) != batch.crc:\n",
        "                if len(content) < size:\n",
        "tests/features/test_store.py",
    ),
    Break(
        "a file takes its name while it is written",
        "writing.py",
        '    partial = path.with_name(f".{path.stem}.partial{path.suffix}")\n    try:\n        yield partial\n',
        '    partial = path.with_name(f".{path.stem}.partial{path.suffix}")\n    try:\n'
        "        yield path\n        import shutil\n\n        shutil.copyfile(path, partial)\n",
        f"{CRASH_POINTS}[extract.npy]",
    ),
    Break(
        "the files of the last epoch are removed before latest.pt names those of the next",
        "training/saving.py",
        "        if best:\n            _copy_whole(model_file, folder / BEST)\n",
        "        if best:\n            _copy_whole(model_file, folder / BEST)\n"
        "        remove_old(folder, state, keep)\n",
        f"{CRASH_POINTS}[train keep]",
    ),
    Break(
        "a second run is let into a folder that another holds",
        "locking.py",
        "            lock.acquire()\n",
        "            pass\n",
        "tests/hardening/test_surroundings.py",
    ),
    Break(
        "rows are appended behind whatever is there",
        "features/store.py",
        "            os.ftruncate(self.appended[kind], self.vouched[kind])",
        "            os.ftruncate(self.appended[kind], os.fstat(self.appended[kind]).st_size)",
        "tests/features/test_store.py",
    ),
    Break(
        "rows are taken from one batch further on (a count off by one)",
        "features/store.py",
        "            source.seek(batch.start * row_bytes)\n",
        "            source.seek((batch.start + 1) * row_bytes)\n",
        "tests/features/test_store.py",
    ),
    Break(
        "what was written is not read back",
        "features/files.py",
        "    if crc != expected:\n",
        "    if False:\n",
        "tests/features/test_files.py",
    ),
    Break(
        "SIGTERM is an error that a decoder's handler takes for a damaged image",
        "errors.py",
        "class Terminated(BaseException):",
        "class Terminated(RuntimeError):",
        "tests/features/test_extract.py::test_sigterm_while_an_image_is_decoded_stops_the_run_and_leaves_no_error_in_it",
    ),
    Break(
        "the file that says where a run stands is written before what it names",
        "training/saving.py",
        '        save_model(checkpoint, model_file, extra={"recipe"',
        "        names = {'modelFile': model_file.name, 'optimFile': optim_file.name}\n"
        "        torch_save({'epoch': state.epoch, **names}, folder / LATEST)\n"
        '        save_model(checkpoint, model_file, extra={"recipe"',
        f"{CRASH_POINTS}[train]",
    ),
    Break(
        "a count in a .t7 is believed before its data is seen",
        "torch7/byte_reader.py",
        "        if count * item_bytes > left:\n",
        "        if False:\n",
        "tests/torch7/test_t7_safety.py",
    ),
    Break(
        "escape sequences in names reach the terminal",
        "text.py",
        "    return (UNSAFE_BUT_NEWLINE if lines else UNSAFE).sub(_escaped, text)\n",
        "    return text\n",
        "tests/test_text.py",
    ),
)


def failures(broken: Break | None, tests: Sequence[str] = ()) -> list[str]:
    """The first of the break's tests that fails in a copy with the broken code; none if the break is not noticed.

    None in place of a break: of `tests`, in a copy as it is.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name in COPIED:
            source, target = ROOT / name, Path(folder) / name
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        if broken is not None:
            tests = [broken.test]
            file = Path(folder) / "resnet_tools" / broken.file
            code = file.read_text()
            assert code.count(broken.old) == 1, f"{broken.file} has {code.count(broken.old)} of {broken.old!r}"
            file.write_text(code.replace(broken.old, broken.new))
        # -m: also the slow tests. -x: the first failure is enough.
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "", "-p", "no:cacheprovider", *tests]
        environment = {**os.environ, "PYTHONPATH": folder}
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return [line.split()[1] for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
