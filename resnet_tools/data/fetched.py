"""Images from stdin and from http:// and https:// addresses, within bounds of size and time."""

from __future__ import annotations

import functools
import queue
import re
import threading
import time
from typing import TYPE_CHECKING

from resnet_tools.data.image import FetchedImage
from resnet_tools.errors import ImageError, ResnetToolsError
from resnet_tools.reading import read_stdin

if TYPE_CHECKING:
    import urllib.request

ADDRESS = re.compile(r"https?://", re.IGNORECASE)
MAX_WEB_BYTES = 1 << 26
WEB_SECONDS = 30.0  # for all of an image
SILENCE_SECONDS = 10.0  # between two pieces of it
CHUNK = 1 << 16


def is_address(argument: str) -> bool:
    return ADDRESS.match(argument) is not None


class StdinImage(FetchedImage):
    """The image on stdin, which is read once."""

    def fetch(self, max_bytes: int) -> bytes:
        return stdin_bytes(max_bytes)


@functools.cache
def stdin_bytes(max_bytes: int) -> bytes:
    try:
        return read_stdin(max_bytes, "image")
    except ResnetToolsError as error:
        raise ImageError(str(error)) from None


class WebImage(FetchedImage):
    """The image at an address."""

    def fetch(self, max_bytes: int) -> bytes:
        return fetch(self, min(max_bytes, MAX_WEB_BYTES))


def fetch(address: str, max_bytes: int) -> bytes:
    """The bytes at an address. Raises: ImageError if the answer is an error, late or too large."""
    answer: queue.SimpleQueue[bytes | ImageError] = queue.SimpleQueue()
    # A server may send one byte of its header every few seconds forever; only waiting for another thread ends that.
    threading.Thread(target=lambda: answer.put(_answer(address, max_bytes)), daemon=True).start()
    try:
        found = answer.get(timeout=WEB_SECONDS)
    except queue.Empty:
        raise ImageError(f"no whole answer within {WEB_SECONDS:g} s") from None
    if isinstance(found, ImageError):
        raise found
    return found


def _answer(address: str, max_bytes: int) -> bytes | ImageError:
    import urllib.error  # here: few images come from addresses, and it takes a twentieth of the time of the first label
    import urllib.request
    from http.client import HTTPException

    end = time.monotonic() + WEB_SECONDS
    parts: list[bytes] = []
    size = 0
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "resnet_tools"})  # noqa: S310 (http or https)
        with _opener().open(request, timeout=SILENCE_SECONDS) as response:
            while part := response.read1(CHUNK):
                parts.append(part)
                size += len(part)
                if size > max_bytes:
                    return ImageError(f"more than {max_bytes >> 20} MiB; no usable image is that large")
                if time.monotonic() > end:
                    return ImageError(f"no whole answer within {WEB_SECONDS:g} s")
            expected = response.headers.get("Content-Length", "")
    except urllib.error.HTTPError as error:
        return ImageError(f"the server answers {error.code} {error.reason}")
    except (OSError, HTTPException, ValueError) as error:  # ValueError: an address that is none
        return ImageError(f"cannot be fetched: {getattr(error, 'reason', None) or error}")
    if expected.isdecimal() and int(expected) > size:
        return ImageError(f"the server sent {size} of {expected} bytes")
    return b"".join(parts)


@functools.cache
def _opener() -> urllib.request.OpenerDirector:
    """Follows http and https only: urllib's own opener also follows redirects to ftp:// and opens file://."""
    import urllib.request

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener
