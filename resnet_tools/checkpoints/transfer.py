"""An address -> all of its bytes in a file, which a later call completes if this one does not.

The folder of a transfer holds `part`, the bytes so far, and `part.json`: the address, what the server called this
version of the file (ETag, or else Last-Modified), its length, and how many bytes of `part` are safe on the disk. A part
is gone on with only if the server confirms that it is one of the same file: the request says so (Range, If-Range), and
the answer must begin where the part ends, in a file of the same length and version. Anything else begins anew.

Only https is spoken, also where a server sends us elsewhere; http to this machine itself is for tests.
Source: RFC 9110, sections 13.1.5 and 14.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import re
import shutil
import string
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any
from urllib.parse import SplitResult, quote, urlsplit

from resnet_tools.errors import DownloadError, ResnetToolsError
from resnet_tools.reading import read_bounded
from resnet_tools.torch7.sniff import HEAD_BYTES, content_kind
from resnet_tools.writing import written_whole

CHUNK = 1 << 18
SYNC_BYTES = 1 << 23  # after so many more bytes those that are there are made safe
MAX_BYTES = 1 << 33  # ten times the largest residual net
SPARE_BYTES = 1 << 24  # of the disk
SILENCE_SECONDS = 30.0
Report = Callable[[int, int | None], None]  # bytes so far, and of how many if the server says it


class NotServedError(DownloadError):
    """The server is not there, or does not give the file."""


@dataclass(frozen=True)
class Known:
    """What part.json says."""

    address: str
    validator: str | None
    total: int
    done: int


def transfer(address: str, folder: Path, report: Report) -> tuple[Path, bool]:
    """The file with all bytes at the address, in `folder`; and whether some of them are from an earlier call.

    Raises: DownloadError if there is no whole answer; what is there is kept for the next call. OSError of the disk.
    """
    part = folder / "part"
    known = _known(folder, address)
    answer, start = _answer(address, known)
    if answer is None:
        return part, True
    with answer:
        total = known.total if known and start else _length(answer)
        _check_size(address, total, start, folder)
        if not start:
            forget(folder)
        version = Known(address, _validator(answer), total or 0, start)
        with part.open("r+b" if start else "wb") as file:
            file.truncate(start)
            file.seek(start)
            _copy(answer, file, folder, version, report)
    return part, start > 0


def is_begun(folder: Path) -> bool:
    return (folder / "part").is_file() and (folder / "part").stat().st_size > 0


def forget(folder: Path) -> None:
    """Remove the part, so that the next transfer begins anew."""
    for name in ("part", "part.json"):
        (folder / name).unlink(missing_ok=True)


def checked_address(address: str) -> SplitResult:
    """The parts of an address that may be fetched. Raises: DownloadError saying why another may not."""
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018 (raises)
    except ValueError as error:
        raise DownloadError(f"{address}: not an address: {error}") from error
    if not parts.hostname or re.search(r"[\x00-\x20\x7f]", address):
        raise DownloadError(f"{address}: not an address; expected https://HOST/PATH")
    if parts.username is not None:
        raise DownloadError(f"{parts.hostname}: names and passwords in an address are not sent; leave them out")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_this_machine(parts.hostname)):
        raise DownloadError(f"{address}: only https is supported, so that nobody on the way can change the file")
    return parts


def is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _known(folder: Path, address: str) -> Known | None:
    """What can be gone on with; None if that is nothing."""
    try:
        known = Known(**json.loads(read_bounded(folder / "part.json", 1 << 16)))
        size = (folder / "part").stat().st_size
    except (ResnetToolsError, OSError, ValueError, TypeError, RecursionError):  # nothing there, or nothing to be used
        return None
    numbers = type(known.done) is int and type(known.total) is int and 0 < known.done <= min(known.total, size)
    texts = known.address == address and (known.validator is None or isinstance(known.validator, str))
    return known if numbers and texts else None


def _remember(file: IO[bytes], folder: Path, version: Known, done: int) -> None:
    """Make the bytes safe, then say that they are. Of a file without a length nothing can be gone on with."""
    file.flush()
    os.fsync(file.fileno())
    if version.total:
        with written_whole(folder / "part.json") as record:
            record.write_text(json.dumps(asdict(version) | {"done": done}))


def _answer(address: str, known: Known | None) -> tuple[HTTPResponse | None, int]:
    """The server's answer and how many bytes of the file stand before it; no answer if the part is the whole file."""
    if known is None:
        answer = _request(address, {})
        if answer.status != 200:
            answer.close()
            raise NotServedError(f"{address}: the server answers {answer.status} to a request for the whole file")
        return answer, 0
    headers = {"Range": f"bytes={known.done}-"}
    if known.validator:
        headers["If-Range"] = known.validator
    try:
        answer = _request(address, headers)
    except _RangeRefused as refusal:
        whole = known.done == known.total and refusal.content_range == f"bytes */{known.total}"
        return (None, known.done) if whole else _answer(address, None)
    if answer.status == 200:
        return answer, 0
    if answer.status == 206 and _goes_on(answer, known):
        return answer, known.done
    answer.close()
    return _answer(address, None)


def _goes_on(answer: HTTPResponse, known: Known) -> bool:
    expected = f"bytes {known.done}-{known.total - 1}/{known.total}"
    same_version = known.validator is None or _validator(answer) in (known.validator, None)
    return answer.headers.get("Content-Range", "").strip() == expected and same_version


def _validator(answer: HTTPResponse) -> str | None:
    """A strong ETag, or the date of the last change: what If-Range may be given."""
    tag = answer.headers.get("ETag")
    found = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")
    return found if found and len(found) < 1000 and found.isprintable() else None


class _RangeRefused(Exception):
    def __init__(self, content_range: str) -> None:
        super().__init__(content_range)
        self.content_range = content_range


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Goes where a server sends us, by https only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        try:
            checked_address(newurl)
        except DownloadError as error:
            fp.close()
            raise NotServedError(f"{req.full_url}: the server redirects to {error}") from error
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _request(address: str, headers: dict[str, str]) -> HTTPResponse:
    own = {"User-Agent": "resnet_tools", "Accept-Encoding": "identity"}
    quoted = quote(address, safe=string.punctuation)
    request = urllib.request.Request(quoted, headers=own | headers)  # noqa: S310 (https, or http to this machine)
    direct = [urllib.request.ProxyHandler({})] if is_this_machine(urlsplit(address).hostname or "") else []
    try:
        answer: HTTPResponse = urllib.request.build_opener(_SafeRedirects, *direct).open(
            request, timeout=SILENCE_SECONDS
        )
    except urllib.error.HTTPError as error:
        error.close()
        if "Range" in headers and error.code in (412, 416):
            raise _RangeRefused(error.headers.get("Content-Range", "").strip()) from error
        reason = " ".join(str(error.reason).split())
        raise NotServedError(f"{address}: the server answers {error.code} {reason}") from error
    except (OSError, HTTPException, ValueError) as error:
        cause = getattr(error, "reason", None) or error
        raise NotServedError(f"{address}: no answer: {getattr(cause, 'strerror', None) or cause}") from error
    encoding = answer.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        answer.close()
        raise DownloadError(
            f"{address}: the server sends the file compressed ({encoding:.20}), which was not asked for"
        )
    return answer


def _length(answer: HTTPResponse) -> int | None:
    text = answer.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"\d{1,18}", text) else None


def _check_size(address: str, total: int | None, start: int, folder: Path) -> None:
    if total == 0:
        raise DownloadError(f"{address}: the server sends an empty file")
    if total is not None and total > MAX_BYTES:
        raise DownloadError(f"{address}: {total:,} bytes; no residual net is as large")
    free = shutil.disk_usage(folder).free
    if total is not None and total - start > free - SPARE_BYTES:
        raise DownloadError(
            f"{address}: {total - start:,} bytes are still to come, and the disk of {folder.parent} has {free:,} left; "
            "make room, or give another place with --output"
        )


def _copy(answer: HTTPResponse, file: IO[bytes], folder: Path, version: Known, report: Report) -> None:
    """The rest of the answer -> the file. However it ends, what has come is kept."""
    done = safe = version.done
    try:
        while chunk := _read(answer, version, done):
            if done == 0 and content_kind(chunk[:HEAD_BYTES], len(chunk)) == "html":
                raise NotServedError(f"{version.address}: the server sends a web page, not a model; look at it there")
            file.write(chunk)
            done += len(chunk)
            _check_room(version, done, folder)
            report(done, version.total or None)
            if done - safe >= SYNC_BYTES:
                _remember(file, folder, version, done)
                safe = done
    finally:
        if done > safe:
            _remember(file, folder, version, done)
    if done < version.total:
        raise _cut(version, done, "the connection ended")


def _check_room(version: Known, done: int, folder: Path) -> None:
    """Raises: DownloadError if more came than was said; or, where nothing was said, more than there is room for."""
    if not version.total and (done > MAX_BYTES or shutil.disk_usage(folder).free < SPARE_BYTES):
        raise DownloadError(f"{version.address}: the disk has no room for the rest; {done:,} bytes have come so far")
    if version.total and done > version.total:
        raise DownloadError(
            f"{version.address}: the server sends more than the {version.total:,} bytes of the file; the same command "
            "starts again from the beginning"
        )


def _read(answer: HTTPResponse, version: Known, done: int) -> bytes:
    try:
        return answer.read1(CHUNK)
    except http.client.IncompleteRead as error:
        raise _cut(version, done, "the connection ended") from error
    except (OSError, HTTPException, ValueError) as error:
        raise _cut(version, done, getattr(error, "strerror", None) or str(error)) from error


def _cut(version: Known, done: int, reason: str) -> DownloadError:
    of = f" of {version.total:,}" if version.total else ""
    return DownloadError(
        f"{version.address}: {reason} after {done:,}{of} bytes; give the same command again to continue, "
        "if the server allows it"
    )
