"""A server on this machine that gives one file, as well or as badly as a test wants."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What is served. `requests`: the Range and If-Range of each request that came, None where there was none."""

    content: bytes
    etag: str | None = '"1"'
    ranges: bool = True
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)  # replace those of a good answer; "" leaves one out
    cut: int | None = None  # the connection ends after so many bytes
    bytes_per_second: int | None = None
    range_answer: str | None = None  # Content-Range in place of the true one
    redirect: str | None = None
    requests: list[tuple[str | None, str | None]] = field(default_factory=list)
    address: str = ""


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _answer(self, site)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.address = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(handler: BaseHTTPRequestHandler, site: Site) -> None:
    asked, condition = handler.headers.get("Range"), handler.headers.get("If-Range")
    site.requests.append((asked, condition))
    if site.redirect and handler.path != "/there":
        handler.send_response(302)
        handler.send_header("Location", site.redirect)
        handler.end_headers()
        return
    start, status, total = 0, site.status, len(site.content)
    headers = {"Content-Type": "application/octet-stream"} | ({"ETag": site.etag} if site.etag else {})
    if asked and site.ranges and status == 200 and condition in (None, site.etag):
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
        status = 206 if start < total else 416
        headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}" if start < total else f"bytes */{total}"
        if site.range_answer:
            headers["Content-Range"] = site.range_answer
    body = b"" if status == 416 else site.content[start:]
    headers = headers | {"Content-Length": str(len(body))} | site.headers
    handler.send_response(status)
    for name, value in headers.items():
        if value:
            handler.send_header(name, value)
    handler.end_headers()
    _send(handler, body if site.cut is None else body[: site.cut], site)


def _send(handler: BaseHTTPRequestHandler, body: bytes, site: Site) -> None:
    try:
        if site.bytes_per_second is None:
            handler.wfile.write(body)
            return
        step = site.bytes_per_second // 20
        for at in range(0, len(body), step):
            handler.wfile.write(body[at : at + step])
            time.sleep(0.05)
    except OSError:  # the client has gone
        pass
