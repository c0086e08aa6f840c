"""A client of `pixelwise serve` that returns what a Predictor returns."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pixelwise.data.classes import IGNORE, Classes
from pixelwise.data.image_files import read_raw
from pixelwise.data.pixel_format import PixelFormat
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.inference.input_image import ImageLike, as_pixels
from pixelwise.inference.results import Prediction, Segmentation, label_map

if TYPE_CHECKING:
    from numpy.typing import NDArray

RETRIED = {502, 503}
LONGEST_WAIT = 8.0  # seconds between two attempts
HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY = "application/octet-stream"
DATATYPES = {"uint8": "UINT8", "uint16": "UINT16", "float32": "FP32"}


class ServiceError(PixelwiseError):
    """The service cannot be reached, or failed."""


class Client:
    """Predicts masks with a running `pixelwise serve`: `Client(url)(image)`.

    Args:
        url: Address of the service, such as `http://localhost:8000`.
        model: Name of a model; None for the first one.
        token: Bearer token of the service.
        timeout: Seconds to wait for an answer.
        retries: How often a request is sent again if the service is overloaded or cannot be
            reached.

    Raises:
        InputError: If the URL is not valid or the model does not exist.
        ServiceError: If the service cannot be reached.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        token: str | None = None,
        timeout: float = 60.0,
        retries: int = 5,
    ) -> None:
        if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
            raise InputError(f"{url}: is not an address: write http://HOST:PORT")
        self.url, self.timeout, self.retries = url.rstrip("/"), timeout, retries
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        models = {entry["name"]: entry for entry in json.loads(self._send("/v1/models")[0])}
        if model is not None and model not in models:
            raise InputError(f"model {model!r} is not served: choose from {', '.join(models)}")
        self.model = model or next(iter(models))
        entry = models[self.model]
        self.pixels = PixelFormat.from_json(entry["pixels"])
        self.classes = Classes.from_json(entry["class_table"])
        self._label_of = np.full(256, IGNORE, np.uint8)
        self._label_of[list(self.classes.written_values)] = range(len(self.classes))

    def __repr__(self) -> str:
        return f"Client({self.url!r}, model {self.model!r}, {len(self.classes)} classes)"

    def __call__(self, image: ImageLike) -> Prediction:
        """Predict one image with probabilities, as `Predictor.__call__` does.

        Raises:
            InputError: If the image cannot be used.
            ServiceError: If the service cannot be reached or fails.
        """
        stored = self._stored(image)
        logits, parameters = self._infer(stored, "logits")
        return Prediction(
            self.pixels.scale(stored),
            label_map(logits),
            self.classes,
            logits,
            parameters["temperature"],
            parameters.get("lowest_familiarity"),
        )

    def segment(self, image: ImageLike) -> Segmentation:
        """Predict the mask alone, which is faster.

        Raises:
            InputError: If the image cannot be used.
            ServiceError: If the service cannot be reached or fails.
        """
        stored = self._stored(image)
        labels = self._label_of[self._infer(stored, "mask")[0]]
        return Segmentation(self.pixels.scale(stored), labels, self.classes)

    def _infer(self, stored: NDArray[Any], output: str) -> tuple[NDArray[Any], dict[str, Any]]:
        """Send an image as a binary tensor of the Open Inference Protocol.

        Returns:
            An output, and the parameters of the answer.
        """
        name = urllib.parse.quote(self.model, safe="")
        body, length = _encode(stored, output)
        return _decode(*self._send(f"/v2/models/{name}/infer", body, length))

    def _stored(self, image: ImageLike) -> NDArray[Any]:
        """Return the stored values (H, W, C) of an image."""
        if isinstance(image, str | Path):
            return self.pixels.select(read_raw(Path(image)), image)
        checked = as_pixels(image, self.pixels)
        return image if isinstance(image, np.ndarray) else checked

    def _send(
        self, path: str, body: bytes | None = None, header_length: int | None = None
    ) -> tuple[bytes, int | None]:
        """Send a request, again if the service is overloaded or restarts.

        Returns:
            The body of the answer, and the length of its JSON part if tensors follow it.
        """
        headers = dict(self._headers)
        if header_length is not None:
            headers |= {HEADER_LENGTH: str(header_length), "Content-Type": BINARY}
        request = urllib.request.Request(self.url + path, data=body, headers=headers)
        for attempt in range(self.retries + 1):
            wait = min(0.25 * 2**attempt, LONGEST_WAIT)
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    length = response.headers.get(HEADER_LENGTH)
                    return response.read(), None if length is None else int(length)
            except urllib.error.HTTPError as error:
                if error.code not in RETRIED or attempt == self.retries:
                    raise _explain(self.url, error) from error
                stated = error.headers.get("Retry-After") or ""
                if stated.isdecimal():  # it may also be a date
                    wait = min(float(stated), LONGEST_WAIT)
            except (OSError, http.client.HTTPException) as error:
                if attempt == self.retries:
                    reason = getattr(error, "reason", error)
                    raise ServiceError(f"{self.url}: cannot be reached ({reason})") from error
            time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")


def _encode(stored: NDArray[Any], output: str) -> tuple[bytes, int]:
    """Return a request for an output in binary form, and the length of its JSON part."""
    data = np.ascontiguousarray(stored, dtype=stored.dtype.newbyteorder("<")).tobytes()
    tensor = {
        "name": "image",
        "shape": list(stored.shape),
        "datatype": DATATYPES[str(stored.dtype)],
        "parameters": {"binary_data_size": len(data)},
    }
    wanted = {"name": output, "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": [tensor], "outputs": [wanted]}).encode()
    return head + data, len(head)


def _decode(body: bytes, header_length: int | None) -> tuple[NDArray[Any], dict[str, Any]]:
    """Return the only tensor of an answer, and the parameters of the answer."""
    head = json.loads(body[:header_length])
    (tensor,) = head["outputs"]
    dtype = {"UINT8": "u1", "FP32": "<f4"}[tensor["datatype"]]
    values: NDArray[Any] = np.frombuffer(body[header_length:], np.dtype(dtype))
    return values.reshape(tensor["shape"]), head.get("parameters", {})


def _explain(url: str, error: urllib.error.HTTPError) -> PixelwiseError:
    try:
        detail = json.loads(error.read())["detail"]
    except (ValueError, KeyError, TypeError):
        detail = error.reason
    if error.code in {400, 404, 413, 422}:
        return InputError(f"{url}: {detail}")
    return ServiceError(f"{url}: status {error.code} ({detail})")
