"""The service: every form of result, limits, overload, reload, and the client."""

# ruff: noqa: E402 (the extra may not be installed)

from __future__ import annotations

import base64
import errno
import io
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fixture_types import Cli

for package in ("fastapi", "uvicorn", "multipart", "prometheus_client", "httpx2"):
    pytest.importorskip(package, reason=f"{package} is not installed (extra `serve`)")

import httpx2 as httpx
from starlette.testclient import TestClient

from pixelwise.client import Client, ServiceError
from pixelwise.errors import InputError
from pixelwise.inference import InferenceOptions, Predictor
from pixelwise.serve.models import ModelStore, model_names
from pixelwise.serve.options import ServeOptions
from pixelwise.serve.server import create_app
from pixelwise.weights.stored_calibration import StoredCalibration, write_calibration


def photo(seed: int = 0, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def store(tiny_bundle: Path) -> ModelStore:
    return ModelStore([tiny_bundle], InferenceOptions(runtime="torch"))


@pytest.fixture
def make_client(store: ModelStore) -> Iterator[Callable[..., TestClient]]:
    clients = []

    def make(**options: Any) -> TestClient:
        client = TestClient(create_app(store, ServeOptions(**options)))
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(make_client: Callable[..., TestClient]) -> TestClient:
    return make_client()


@pytest.fixture(scope="module")
def predictor(tiny_bundle: Path) -> Predictor:
    return Predictor.load(tiny_bundle, runtime="torch")


def test_every_output_is_that_of_the_predictor(client: TestClient, predictor: Predictor) -> None:
    expected = predictor(photo())
    body = png(photo())

    def post(output: str) -> httpx.Response:
        response = client.post("/v1/segment", params={"output": output}, content=body)
        assert response.status_code == 200, response.text
        return response

    mask = np.asarray(Image.open(io.BytesIO(post("mask").content)))
    np.testing.assert_array_equal(mask, expected.mask)
    overlay = Image.open(io.BytesIO(post("overlay").content))
    np.testing.assert_array_equal(np.asarray(overlay), np.asarray(expected.overlay(legend=False)))
    probabilities = np.load(io.BytesIO(post("probabilities").content))
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-3)
    confidence = np.asarray(Image.open(io.BytesIO(post("confidence").content)))
    assert np.abs(confidence / 255 - expected.probabilities.max(0)).max() <= 0.5 / 255 + 1e-6
    labels = Image.open(io.BytesIO(post("labels").content)).convert("RGB")
    np.testing.assert_array_equal(np.asarray(labels)[..., 0], expected.labels)
    rle = post("rle").json()
    decoded = np.zeros(rle["height"] * rle["width"], np.int64)
    for segment in rle["segments"]:
        runs = np.repeat(np.arange(len(segment["counts"])) % 2, segment["counts"])
        decoded[: len(runs)] += runs * (expected.classes.names.index(segment["class"]) + 1)
    labels = decoded.reshape(rle["width"], rle["height"]).T - 1
    np.testing.assert_array_equal(labels, expected.labels)
    rows = {row["class"]: row["pixels"] for row in post("table").json()["classes"]}
    counts = [int((expected.labels == i).sum()) for i in range(len(expected.classes))]
    assert rows == dict(zip(expected.classes.names, counts, strict=True))


def test_several_outputs_and_images_come_in_one_answer(
    client: TestClient, predictor: Predictor
) -> None:
    files = [("image", (f"{i}.png", png(photo(i)))) for i in range(3)]
    files.insert(1, ("image", ("bad.png", b"no image")))
    answer = client.post("/v1/segment", params={"output": "mask,table"}, files=files).json()
    assert [entry["name"] for entry in answer] == ["0.png", "bad.png", "1.png", "2.png"]
    assert "is not an image" in answer[1]["error"]
    for entry, seed in zip([answer[0], *answer[2:]], range(3), strict=True):
        mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(entry["mask"]))))
        np.testing.assert_array_equal(mask, predictor(photo(seed)).mask)
        assert sum(row["pixels"] for row in entry["table"]["classes"]) == mask.size


def test_masks_tables_and_polygons_are_cleaned_alike(
    client: TestClient, predictor: Predictor
) -> None:
    query = {"min_area": 40, "fill_holes": True, "background": "road"}
    raw = predictor(photo())
    expected = raw.clean(**query)
    assert (expected.labels != raw.labels).any()
    outputs = {"output": "labels,table,polygons,confidence"}
    answer = client.post("/v1/segment", params={**outputs, **query}, content=png(photo())).json()
    labels = Image.open(io.BytesIO(base64.b64decode(answer["labels"]))).convert("L")
    np.testing.assert_array_equal(np.asarray(labels), expected.labels)
    assert answer["table"]["classes"] == expected.table()
    found = [feature["properties"]["pixels"] for feature in answer["polygons"]["features"]]
    assert found == [polygon.pixels for polygon in expected.polygons()]
    assert min(found) >= 40
    confidence = Image.open(io.BytesIO(base64.b64decode(answer["confidence"]))).convert("L")
    assert np.abs(np.asarray(confidence) / 255 - expected.confidence).max() <= 0.5 / 255 + 1e-6
    for wrong in ({"min_area": -1}, {"min_area": "1m2"}, {"fill_holes": True}):
        response = client.post("/v1/segment", params=wrong, content=png(photo()))
        assert response.status_code == 422
    assert "name one of sky, road, car" in response.json()["detail"]


@pytest.mark.parametrize("limit", [-1e9, 1e9])
def test_images_unlike_the_data_of_a_calibrated_model_are_flagged(
    tiny_bundle: Path, tmp_path: Path, limit: float
) -> None:
    bundle = tmp_path / "road.safetensors"
    shutil.copy(tiny_bundle, bundle)
    write_calibration(bundle, StoredCalibration(2.5, limit, 0.05, 20))
    store = ModelStore([bundle], InferenceOptions(runtime="torch"))
    with TestClient(create_app(store, ServeOptions())) as client:
        response = client.post("/v1/segment", params={"output": "table"}, content=png(photo()))
        assert response.json()["flagged"] is (limit > 0)
        image = photo()
        tensor = {"name": "image", "shape": list(image.shape), "datatype": "UINT8"}
        content: dict[str, Any] = {
            "inputs": [{**tensor, "data": image.reshape(-1).tolist()}],
            "outputs": [{"name": "probabilities"}],
        }
        answer = client.post("/v2/models/road/infer", json=content).json()
        assert answer["parameters"] == {
            "temperature": 2.5,
            "lowest_familiarity": limit,
            "flagged": limit > 0,
        }


def test_the_inference_protocol_in_json_and_binary(
    client: TestClient, predictor: Predictor
) -> None:
    image = photo()
    tensor = {"name": "image", "shape": list(image.shape), "datatype": "UINT8"}
    content = {"id": "a", "inputs": [{**tensor, "data": image.reshape(-1).tolist()}]}
    answer = client.post("/v2/models/tiny/infer", json=content).json()
    (output,) = answer["outputs"]
    mask = np.array(output["data"], np.uint8).reshape(output["shape"])
    np.testing.assert_array_equal(mask, predictor(image).mask)
    assert answer["id"] == "a"
    for path in ("", "/health/live", "/health/ready", "/models/tiny", "/models/tiny/ready"):
        assert client.get(f"/v2{path}").status_code == 200
    assert client.get("/v2/models/other").status_code == 404


HOSTILE = [
    (b"", 400),
    (b"not an image", 422),
    (png(photo())[:-40], 422),
    (b"\x89PNG\r\n\x1a\n" + bytes(100), 422),
    (b"GIF89a" + bytes(40), 422),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422),
]


@pytest.mark.parametrize(("body", "status"), HOSTILE)
def test_bodies_that_are_no_images_are_refused(
    client: TestClient, body: bytes, status: int
) -> None:
    response = client.post("/v1/segment", content=body)
    assert response.status_code == status
    assert "/tmp" not in response.text
    assert client.post("/v1/segment", content=png(photo())).status_code == 200


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), FileNotFoundError("none")])
def test_a_full_folder_of_temporary_files_is_not_an_error_of_the_service(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """A container may have a small or no folder for them. Forms need none."""

    def refuse(*_: object, **__: object) -> None:
        raise error

    image = photo(size=(700, 700))
    body = png(image)
    assert len(body) > 1 << 20
    with monkeypatch.context() as context:
        context.setattr(tempfile.SpooledTemporaryFile, "rollover", refuse)
        files = {"image": ("a.png", body)}
        assert client.post("/v1/segment", files=files).status_code == 200
        context.setattr(tempfile, "NamedTemporaryFile", refuse)
        response = client.post("/v1/segment", content=body)
        assert response.status_code == 503
        assert response.headers["retry-after"] == "5"
        assert "no room" in response.json()["detail"]
    assert client.post("/v1/segment", content=png(photo())).status_code == 200


def test_limits(make_client: Callable[..., TestClient]) -> None:
    small = make_client(max_bytes=3000, max_pixels=1000)
    assert small.post("/v1/segment", content=bytes(3001)).status_code == 413
    chunks = (bytes(1000) for _ in range(5))  # without content-length
    assert small.post("/v1/segment", content=chunks).status_code == 413
    flat = np.zeros((40, 40, 3), np.uint8)
    response = small.post("/v1/segment", content=png(flat))
    assert response.status_code == 413
    assert "40x40" in response.text
    bomb = io.BytesIO()
    Image.new("1", (8_000, 8_000)).save(bomb, "PNG")
    client = make_client()
    assert client.post("/v1/segment", content=bomb.getvalue()).status_code == 413


def test_the_token_is_needed_for_everything_but_the_page_and_probes(
    make_client: Callable[..., TestClient],
) -> None:
    client = make_client(token="secret")
    for path in ("/v1/models", "/v2", "/v2/models/tiny", "/metrics", "/openapi.json"):
        assert client.get(path).status_code == 401
        for wrong in ("Bearer wrong", "Basic secret", "secret", "Bearer", "Bearer sécret"):
            headers = {"Authorization": wrong.encode("latin-1").decode("latin-1")}
            sent = [(k.encode(), v.encode("latin-1")) for k, v in headers.items()]
            assert client.get(path, headers=sent).status_code == 401
        assert client.get(path, headers={"Authorization": "Bearer secret"}).status_code == 200
    assert client.post("/v1/segment", content=png(photo())).status_code == 401
    for path in ("/", "/v2/health/live", "/v2/health/ready"):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize(
    "path", ["/page/../server.py", "/page/%2e%2e/server.py", "/page//etc/passwd", "/page/x"]
)
def test_no_other_file_is_readable(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_unknown_models_and_outputs_are_refused(client: TestClient) -> None:
    response = client.post("/v1/segment", params={"model": "x"}, content=png(photo()))
    assert response.status_code == 404
    assert "tiny" in response.json()["detail"]
    response = client.post("/v1/segment", params={"output": "mask,x"}, content=png(photo()))
    assert response.status_code == 422
    assert "overlay" in response.json()["detail"]


def test_requests_are_counted_and_identified(client: TestClient) -> None:
    response = client.post("/v1/segment", content=png(photo()), headers={"X-Request-ID": "my-id"})
    assert response.headers["x-request-id"] == "my-id"
    assert (
        len(client.get("/v1/models", headers={"X-Request-ID": "a b"}).headers["x-request-id"]) > 8
    )
    text = client.get("/metrics").text
    assert 'pixelwise_images_total{model="tiny"} 1.0' in text
    assert 'path="/v1/segment",status="200"' in text


def test_model_names() -> None:
    paths = [
        Path("runs/leaf/best.safetensors"),
        Path("a/road.safetensors"),
        Path("runs/x/best-onnx"),
    ]
    assert model_names(paths) == ["leaf", "road", "x"]
    with pytest.raises(InputError, match="'road'"):
        model_names([Path("a/road.safetensors"), Path("b/road.safetensors")])


class Server:
    """A server process."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pixelwise", "serve", *map(str, arguments)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert " at http" in line, (line, Path(self.log.name).read_text())
        self.url = line.split(" at ")[1].split()[0]

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(60)
        self.log.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers = []

    def run(*arguments: object) -> Server:
        servers.append(Server(tmp_path, *arguments))
        return servers[-1]

    yield run
    for server in servers:
        if server.process.poll() is None:
            server.stop()


def test_a_server_reloads_a_replaced_bundle_and_finishes_requests(
    start: Callable[..., Server], tiny_bundle: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "road.safetensors"
    shutil.copy(tiny_bundle, bundle)
    write_calibration(bundle, StoredCalibration(2.5, 1e9, 0.05, 20))
    server = start(bundle, "--port", 0, "--runtime", "torch")
    remote = Client(server.url)
    expected = Predictor.load(bundle, runtime="torch")(photo())
    result = remote(photo())
    np.testing.assert_array_equal(result.labels, expected.labels)
    np.testing.assert_array_equal(result.logits, expected.logits)
    np.testing.assert_array_equal(result.probabilities, expected.probabilities)
    assert result.classes == expected.classes
    assert result.flagged is expected.flagged is True
    np.testing.assert_array_equal(remote.segment(photo()).labels, expected.labels)
    path = tmp_path / "photo.png"
    path.write_bytes(png(photo()))
    np.testing.assert_array_equal(remote.segment(path).labels, expected.labels)

    failures: list[Exception] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                Client(server.url, retries=0).segment(photo())
            except Exception as error:
                failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    Path(shutil.copy(tiny_bundle, tmp_path / "new")).replace(bundle)
    for _ in range(100):
        (model,) = httpx.get(f"{server.url}/v1/models").json()
        if model["version"] == 2:
            break
        time.sleep(0.1)
    done.set()
    thread.join()
    assert model["version"] == 2
    assert not failures
    assert server.stop() == 0
    lines = [json.loads(line) for line in Path(server.log.name).read_text().splitlines()]
    assert any(line["message"] == "model reloaded" for line in lines)
    assert any(line.get("path") == "/v2/models/road/infer" for line in lines)
    with pytest.raises(ServiceError, match="cannot be reached"):
        Client(server.url, retries=0)


@pytest.mark.slow
def test_a_client_loses_nothing_when_the_server_is_killed_under_load(
    start: Callable[..., Server], tiny_bundle: Path, predictor: Predictor
) -> None:
    """Killed without warning five times, while eight clients send requests all the time."""
    server = start(tiny_bundle, "--port", 0, "--runtime", "torch", "--queue", 4)
    port = server.url.rpartition(":")[2]
    expected = [predictor.segment(photo(seed)).labels for seed in range(8)]
    remote = Client(server.url, retries=60, timeout=60)
    done = threading.Event()

    def ask(number: int) -> int:
        answered = 0
        while not done.is_set():
            seed = (number + answered) % len(expected)
            labels = remote.segment(photo(seed)).labels
            np.testing.assert_array_equal(labels, expected[seed])
            answered += 1
        return answered

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask, number) for number in range(8)]
        for _ in range(5):
            time.sleep(2)
            assert server.stop(signal.SIGKILL) == -signal.SIGKILL
            server = start(tiny_bundle, "--port", port, "--runtime", "torch", "--queue", 4)
        time.sleep(2)
        done.set()
        counts = [each.result() for each in asking]
    assert min(counts) >= 1, counts
    assert sum(counts) >= 40, counts


def test_a_client_waits_whatever_a_proxy_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A restarting proxy may drop connections, or send the time of day in Retry-After."""
    answers: list[str | None] = ["Wed, 21 Oct 2026 07:28:00 GMT", None, "-5", "nan", "3"]
    waits: list[float] = []
    monkeypatch.setattr("pixelwise.client.time.sleep", waits.append)

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not answers:
                self.send_error(500, "over")
                return
            value = answers.pop(0)
            if value is None:
                self.close_connection = True  # without an answer
                return
            self.send_response(503)
            self.send_header("Retry-After", value)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever).start()
        with pytest.raises(ServiceError, match=r"status 500 \(over\)"):
            Client(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert waits == [0.25, 0.5, 1.0, 2.0, 3.0]


def test_without_a_bundle_the_newest_run_is_served(
    start: Callable[..., Server], tiny_bundle: Path, tmp_path: Path, run_cli: Cli
) -> None:
    refused = run_cli("serve")
    assert refused.code == 2
    assert "pixelwise train" in refused.err
    folder = tmp_path / "runs" / "leaf"
    folder.mkdir(parents=True)
    shutil.copy(tiny_bundle, folder / "best.safetensors")
    server = start("--port", 0, "--runtime", "torch")
    assert [m["name"] for m in httpx.get(f"{server.url}/v1/models").json()] == ["leaf"]
