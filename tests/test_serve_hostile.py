"""The service against clients that are careless or hostile."""

# ruff: noqa: E402 (the extra may not be installed)

from __future__ import annotations

import io
import json
import socket
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

for package in ("fastapi", "uvicorn", "multipart", "prometheus_client"):
    pytest.importorskip(package, reason=f"{package} is not installed (extra `serve`)")

import uvicorn

from pixelwise.inference import InferenceOptions
from pixelwise.serve.models import ModelStore
from pixelwise.serve.options import ServeOptions
from pixelwise.serve.server import create_app

TOKEN = "secret"
LIMIT = 200_000


@pytest.fixture(scope="module")
def port(tiny_bundle: Path) -> Iterator[int]:
    store = ModelStore([tiny_bundle], InferenceOptions(runtime="torch"))
    options = ServeOptions(token=TOKEN, max_bytes=LIMIT, max_pixels=1_000_000, timeout=3.0, queue=8)
    config = uvicorn.Config(create_app(store, options), port=0, log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def photo(size: tuple[int, int] = (32, 48)) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of one color whose header states a size of `side` x `side`."""
    stream = io.BytesIO()
    Image.new("1", (8, 8)).save(stream, "PNG")
    data = bytearray(stream.getvalue())
    data[16:24] = side.to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def send(port: int, head: str, body: bytes = b"", *, token: str | None = TOKEN) -> int:
    """Send a raw request; return the status, or 0 if the connection was closed without one."""
    lines = [head, "Host: localhost", f"Content-Length: {len(body)}", "Connection: close"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    return raw(port, "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)


def raw(port: int, content: bytes) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            connection.sendall(content)
        except OSError:
            return 0
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except OSError:
            pass
    return int(answer.split()[1]) if answer.startswith(b"HTTP/") else 0


def hostile(port: int) -> Iterator[tuple[str, int, set[int]]]:
    """A description, the status, and the allowed statuses of each request."""
    post, rng = "POST /v1/segment HTTP/1.1", np.random.default_rng(0)
    good = photo()
    for seed in range(90):  # damaged images
        data = bytearray(good)
        for position in rng.integers(0, len(data), 1 + seed % 20):
            data[position] = rng.integers(256)
        yield f"damaged {seed}", send(port, post, bytes(data)), {200, 413, 422}
    for length in range(0, len(good), max(1, len(good) // 30)):  # cut off
        yield f"cut at {length}", send(port, post, good[:length]), {400, 422}
    for side in (1_001, 10_000, 65_535, 2**31 - 1):
        yield f"bomb {side}", send(port, post, bomb(side)), {413, 422}
    for size in (LIMIT + 1, 2 * LIMIT):
        yield f"huge {size}", send(port, post, bytes(size)), {413, 0}
    for body in (b"<html>", b"{}", b"\0" * 100, b"II*\0" + b"\xff" * 60, b"%PDF-1.4", b"RIFF"):
        yield f"{body[:6]!r}", send(port, post, body), {422}
    for token in (None, "", "wrong", "secre", "secret2", "\xe9", "a" * 5000):
        yield f"token {token!r:.9}", send(port, post, good, token=token), {401, 400, 431}
    for path in ("/page/../server.py", "/page/%2e%2e/server.py", "/page/..%2fserver.py", "//etc"):
        yield path, send(port, f"GET {path} HTTP/1.1"), {404}
    for path in (
        "/../../etc/passwd",
        "/page/%00",
        "/page/" + "a" * 3000,
        "/v1/x",
        "/v2/models/%2e",
    ):
        yield path[:20], send(port, f"GET {path} HTTP/1.1"), {404, 400}
    for query in ("model=../x", "output=", "output=x", "output=mask,,", "model=" + "%00" * 9):
        head = f"POST /v1/segment?{query} HTTP/1.1"
        yield query[:20], send(port, head, good), {404, 422}
    for method in ("GET", "PUT", "DELETE", "PATCH", "TRACE", "HEAD"):
        yield method, send(port, f"{method} /v1/segment HTTP/1.1"), {405}
    form = "\r\nContent-Type: multipart/form-data"
    for kind in (
        form,
        f"{form}; boundary=",
        f"{form}; boundary=x",
        f"{form}; boundary={'x' * 300}",
    ):
        for body in (b"", b"--x--\r\n", b"--x\r\nContent-Disposition: form-data", b"\xff" * 50):
            yield f"form {kind[-12:]}", send(port, post + kind, body), {400}
    infer = "POST /v2/models/tiny/infer HTTP/1.1"
    tensor = {"name": "image", "shape": [2, 2, 3], "datatype": "UINT8", "data": [0] * 12}
    for change in (
        {"shape": [2, 2]},
        {"shape": [-2, 2, 3]},
        {"shape": [2**40, 2**40, 3]},
        {"shape": "x"},
        {"datatype": "FP64"},
        {"data": [0] * 11},
        {"data": [1e300] * 12},
        {"data": ["a"] * 12},
        {"data": [[0], [1, 2]]},
        {"data": None},
        {"parameters": {"binary_data_size": 10**12}},
        {"parameters": {"binary_data_size": "x"}},
    ):
        content = json.dumps({"inputs": [{**tensor, **change}]}).encode()
        yield f"infer {change}", send(port, infer, content), {400}
    for content in (b"", b"[]", b"null", b"{", b"[" * 100_000, b'{"inputs": {}}', b"\xff"):
        yield f"infer {content[:9]!r}", send(port, infer, content), {400}
    for length in ("-1", "x", "99999999"):
        head = f"{infer}\r\nInference-Header-Content-Length: {length}"
        yield f"length {length}", send(port, head, b"{}"), {400}
    for content in (b"GET / HTTP/9.9\r\n\r\n", b"\xff" * 5000, b"GET /\r\n\r\n", b"\r\n" * 100):
        yield f"raw {content[:9]!r}", raw(port, content + b"\r\n\r\n"), {400, 0, 505, 200}
    smuggled = (
        b"POST /v1/segment HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\n"
    )
    yield "two lengths", raw(port, smuggled), {400, 0}
    slow = b"POST /v1/segment HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n"
    yield "slow body", raw(port, slow + b"Content-Length: 1000\r\n\r\nabc"), {408}


def test_hostile_requests_get_the_right_status_and_the_service_survives(port: int) -> None:
    counts: Counter[int] = Counter()
    wrong = []
    for name, status, allowed in hostile(port):
        counts[status] += 1
        if status not in allowed:
            wrong.append((name, status))
        if sum(counts.values()) % 25 == 0:
            assert send(port, "POST /v1/segment HTTP/1.1", photo()) == 200, name
    assert not wrong
    assert sum(counts.values()) >= 200
    assert not any(500 <= status < 600 and status != 505 for status in counts)


def test_clients_that_vanish_or_stall_do_not_block_others(port: int) -> None:
    stalled = []
    for _ in range(30):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(b"POST /v1/segment HTTP/1.1\r\nHost: x\r\nContent-Le")
        stalled.append(connection)
    body = photo((200, 200))
    head = f"POST /v1/segment HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    for _ in range(20):  # they leave without waiting for the answer
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    for _ in range(100):
        status = send(port, "POST /v1/segment HTTP/1.1", photo())
        if status == 200:
            break
        assert status == 503
        time.sleep(0.1)
    assert status == 200
    for connection in stalled:
        connection.close()


def test_the_openapi_schema_holds(tiny_bundle: Path) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    from hypothesis import HealthCheck, Phase, settings

    store = ModelStore([tiny_bundle], InferenceOptions(runtime="torch"))
    app = create_app(store, ServeOptions(max_bytes=LIMIT))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    phases = [Phase.explicit, Phase.generate]
    statuses: Counter[int] = Counter()
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=40, deadline=None, phases=phases, suppress_health_check=list(HealthCheck)
        )
        @__import__("hypothesis").given(case=operation.as_strategy())
        def check(case: object) -> None:
            response = case.call()  # type: ignore[attr-defined]
            statuses[response.status_code] += 1
            assert response.status_code < 500, response.text

        check()
    assert sum(statuses.values()) > 100
