"""An S3 server in a process of its own, which fails on request.

It prints its port. `POST /faults` with JSON {"times": N, "kinds": [...], "match": TEXT} makes the
next N requests for each object whose path contains TEXT fail: `error` answers 503, `slow` waits
longer than the client, `short` sends half of the content.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

SLOW_SECONDS = 1.5
CLIENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "FSSPEC_S3": json.dumps(
        {"config_kwargs": {"read_timeout": 0.5, "retries": {"max_attempts": 0}}}
    ),
}
"""What a client sets, so that it waits only briefly and does not hide the faults."""


class FaultyApp:
    """The application of the server, behind the faults."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.plan: dict[str, Any] = {"times": 0, "kinds": [], "match": ""}
        self.failed: Counter[str] = Counter()
        self.total = 0
        self.lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if path == "/faults":
            length = int(environ.get("CONTENT_LENGTH") or 0)
            if method == "POST":
                with self.lock:
                    self.plan = json.loads(environ["wsgi.input"].read(length))
                    self.total += sum(self.failed.values())
                    self.failed.clear()
            start("200 OK", [("Content-Type", "application/json")])
            return [json.dumps({"failed": self.total + sum(self.failed.values())}).encode()]
        kind = self._choose(method, path)
        if kind == "error":
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start("503 Service Unavailable", [("Content-Length", "0")])
            return [b""]
        if kind == "slow":
            time.sleep(SLOW_SECONDS)
        content: Iterable[bytes] = self.app(environ, start)
        if kind == "short" and method == "GET":
            whole = b"".join(content)
            return [whole[: len(whole) // 2]]  # after the length of the whole
        return content

    def _choose(self, method: str, path: str) -> str:
        plan = self.plan
        if method not in {"GET", "PUT"} or path.count("/") < 2 or plan["match"] not in path:
            return ""
        with self.lock:
            if self.failed[path] >= plan["times"]:
                return ""
            self.failed[path] += 1
            kinds: list[str] = plan["kinds"]
            return kinds[(zlib.crc32(path.encode()) + self.failed[path]) % len(kinds)]


class Store:
    """The server as a test sees it: bucket `bucket`, and the address and faults of the server."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def fail(self, *kinds: str, times: int = 1, match: str = "") -> None:
        plan = {"times": times if kinds else 0, "kinds": kinds, "match": match}
        self._call(json.dumps(plan).encode())

    def failures(self) -> int:
        return int(self._call(None)["failed"])

    def _call(self, data: bytes | None) -> Any:
        request = urllib.request.Request(f"{self.url}/faults", data)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def object_store() -> Iterator[Store]:
    """Run a server with an empty bucket."""
    with subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Store(int(process.stdout.readline()))
        finally:
            process.kill()


def main() -> None:
    os.environ.update(CLIENT)
    import boto3
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:
            pass

    app = FaultyApp(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.port}"
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket="bucket")
    print(server.port, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
