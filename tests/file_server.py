"""A local HTTP server for the tests of downloads: cuts, ranges, redirects, wrong content."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pixelwise.data.published import download


@dataclass
class Server:
    """Files by name, and how they are served.

    Attributes:
        cuts: For each of the next responses, the number of bytes after which it is cut.
        ranges: Whether Range requests are supported.
        shift: Error of the offset in Content-Range.
        redirects: Addresses by the names that redirect to them.
        requests: The Range header of each request, in order.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    shift: int = 0
    redirects: dict[str, str] = field(default_factory=dict)
    requests: list[str | None] = field(default_factory=list)


@contextmanager
def serve_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serve files over HTTP, and let downloads retry at once."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested = self.headers.get("Range")
            state.requests.append(requested)
            if target := state.redirects.get(self.path.lstrip("/")):
                self.send_response(302)
                self.send_header("Location", target)
                self.end_headers()
                return
            content = state.files.get(self.path.lstrip("/"))
            if content is None:
                self.send_error(404)
                return
            start = 0
            if requested and state.ranges:
                start = int(requested.removeprefix("bytes=").rstrip("-"))
                if start >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206)
                span = f"{start + state.shift}-{len(content) - 1}"
                self.send_header("Content-Range", f"bytes {span}/{len(content)}")
            else:
                self.send_response(200)
            rest = content[start:]
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: state.cuts.pop(0)] if state.cuts else rest)

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.address = f"http://127.0.0.1:{httpd.server_port}"
    monkeypatch.delenv("PIXELWISE_OFFLINE", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    try:
        yield state
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
