"""OpenVINO: the fast runtime on a CPU."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from queue import SimpleQueue
from threading import Lock
from typing import Any, Generic, TypeVar

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from pixelwise.data.pixels import Pixels
from pixelwise.errors import InputError
from pixelwise.inference.exported import Export
from pixelwise.inference.runtimes.geometry import Geometry, Size
from pixelwise.inference.runtimes.openvino_dilation import split_dilated
from pixelwise.inference.runtimes.openvino_parts import PartGraphs
from pixelwise.inference.runtimes.openvino_winograd import halve_multiplications
from pixelwise.inference.runtimes.runtime import View
from pixelwise.inference.traits import Traits
from pixelwise.process import cores

Compiled = TypeVar("Compiled")

KEPT = 2  # compiled sizes; each has a copy of the weights
WORTH = 3  # pictures of a size after which it is compiled for itself
LATENCY = {"PERFORMANCE_HINT": "LATENCY"}
# Of the memory that PyTorch takes at its peak. Measured: 0.5 to 0.75, and 0.27 to 0.32.
MEMORY, LABEL_MEMORY = 0.75, 0.32


class OpenVINORuntime:
    """A model in OpenVINO's format, compiled for the CPU.

    A model compiled for one size is faster than one for any: the first picture's size and every
    one that comes often are compiled for themselves, and the last two of them are kept. For one
    picture after the other, and for several at once, which then have a core each, it is compiled
    apart.

    precision: "f32", or "bf16", which processors with AMX compute several times faster and which
    keeps 8 bits of the 24 of a number.
    """

    def __init__(self, export: Export, *, precision: str = "f32") -> None:
        self.name = export.name if precision == "f32" else f"{export.name}-{precision}"
        self._core = ov.Core()
        try:
            self._model = self._core.read_model(export.path)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"{export.path}: OpenVINO cannot read it ({reason})") from error
        self._precision = precision
        self._streams = cores()
        # One more picture than streams, so that none of these waits for its next one.
        self.concurrency = self._streams + 1 if self._streams > 1 else 1
        self._one = _BySize(self._request)
        self._several = _BySize(self._requests)

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """(H, W, N) in units of 0..255 to (C, H, W) float32."""
        return self._run(image, "logits")

    def classify(self, image: Pixels) -> NDArray[np.uint8]:
        """(H, W, N) in units of 0..255 to (H, W) class indices."""
        return self._run(image, "labels")

    def classify_concurrently(self, image: Pixels) -> NDArray[np.uint8]:
        """The same on a core, as `ConcurrentRuntime` has it."""
        requests = self._several.get(_size(image), "labels")
        request = requests.get()
        try:
            return _infer(request, image)
        finally:
            requests.put(request)

    def _run(self, image: Pixels, output: str) -> NDArray[Any]:
        return _infer(self._one.get(_size(image), output), image)

    def _request(self, output: str, size: Size | None) -> ov.InferRequest:
        """For one picture at a time, by all cores."""
        return self._compiled(self._sized(output, size)).create_infer_request()

    def _requests(self, output: str, size: Size | None) -> SimpleQueue[ov.InferRequest]:
        """For several at once: as many requests, of one compiled model."""
        options = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": self._streams}
        model = self._compiled(self._sized(output, size), options)
        requests: SimpleQueue[ov.InferRequest] = SimpleQueue()
        for _ in range(self.concurrency):
            requests.put(model.create_infer_request())
        return requests

    def _sized(self, output: str, size: Size | None) -> ov.Model:
        model = self._for(output)
        if size is not None:
            channels = model.input(0).partial_shape[3].get_length()
            model.reshape([1, *size, channels])
        return model

    def _for(self, output: str) -> ov.Model:
        """The graph without its other output, and the work that only that needs."""
        model = self._model.clone()
        results = [one for one in model.results if output in one.output(0).names]
        return ov.Model(results, model.get_parameters(), "pixelwise")

    def _compiled(self, model: ov.Model, options: Mapping[str, Any] = LATENCY) -> ov.CompiledModel:
        rewrite = split_dilated if self._precision == "bf16" else halve_multiplications
        if not model.is_dynamic():
            rewrite(model)
        precision = {"INFERENCE_PRECISION_HINT": self._precision}
        return self._core.compile_model(model, "CPU", {**options, **precision})


class _BySize(Generic[Compiled]):
    """What is made for a size, or for any (None), kept as `OpenVINORuntime` says.

    make: given the output of the graph, and the size. Methods may be called from any thread.
    """

    def __init__(self, make: Callable[[str, Size | None], Compiled]) -> None:
        self._make = make
        self._lock = Lock()
        self._seen: Counter[Size] = Counter()
        self._static: OrderedDict[tuple[Size, str], Compiled] = OrderedDict()
        self._dynamic: dict[str, Compiled] = {}

    def get(self, size: Size, output: str) -> Compiled:
        """For a picture of this size, and one of the graph's outputs."""
        with self._lock:
            self._seen[size] += 1
            key = (size, output)
            if key in self._static:
                self._static.move_to_end(key)
                return self._static[key]
            if len(self._seen) == 1 or self._seen[size] >= WORTH:
                while len(self._static) >= KEPT:
                    self._static.popitem(last=False)
                self._static[key] = self._make(output, size)
                return self._static[key]
            if output not in self._dynamic:
                self._dynamic[output] = self._make(output, None)
            return self._dynamic[output]

    @property
    def sizes(self) -> list[Size]:
        """Those that something is compiled for."""
        return [size for size, _ in self._static]


class PartOpenVINORuntime(OpenVINORuntime):
    """The same for an export that says what windows need: a `PartRuntime`."""

    def __init__(self, export: Export, traits: Traits, *, precision: str = "f32") -> None:
        super().__init__(export, precision=precision)
        self.traits = replace(
            traits,
            bytes_per_pixel=MEMORY * traits.bytes_per_pixel,
            label_bytes_per_pixel=LABEL_MEMORY * traits.label_bytes_per_pixel,
        )
        self._graphs = PartGraphs(self._for("logits"))
        self._geometry = Geometry(self._graphs.sizes)
        self._part: tuple[tuple[Size, int | None], ov.InferRequest] | None = None

    def part_logits(self, window: Pixels, view: View) -> NDArray[np.float32]:
        """(h, w, N) to (C, h, w), as `PartRuntime` has it."""
        found: NDArray[np.float32] = self._run_part(window, view, None)[0].copy()
        return found

    def part_sums(
        self, window: Pixels, view: View, own: tuple[slice, slice]
    ) -> tuple[NDArray[np.float64], int]:
        """The sums of the window's share of a pooled map, as `PartRuntime` has it."""
        rows, columns = self._geometry.share(_size(window), view, own)
        share = self._run_part(window, view, len(view.pooled))[0, :, rows, columns]
        sums: NDArray[np.float64] = share.sum(axis=(1, 2), dtype=np.float64)
        return sums, share.shape[1] * share.shape[2]

    def _run_part(self, window: Pixels, view: View, pooling: int | None) -> NDArray[Any]:
        """The logits, or the map of a pooling, (1, C, h, w); good until the next run."""
        size = _size(window)
        key = (size, pooling)
        if self._part is None or self._part[0] != key:
            self._part = None  # its memory goes before the next one's is taken
            graphs = self._graphs
            model = graphs.for_logits(size) if pooling is None else graphs.for_sums(size, pooling)
            self._part = (key, self._compiled(model).create_infer_request())
        request = self._part[1]
        sizes, lines = self._geometry.sizes(size), self._geometry.lines(size, view)
        inputs = self._graphs.inputs(sizes, lines, view.pooled)
        asked = {name for port in request.model_inputs for name in port.names}
        given = {name: value for name, value in inputs.items() if name in asked}
        request.infer({"image": np.ascontiguousarray(window)[None], **given}, share_inputs=True)
        found: NDArray[Any] = request.get_output_tensor(0).data
        return found


def open_export(export: Export, *, precision: str = "f32") -> OpenVINORuntime:
    """The runtime for an export. Raises InputError where OpenVINO cannot read it."""
    if export.traits is None:  # it is of an earlier version
        return OpenVINORuntime(export, precision=precision)
    return PartOpenVINORuntime(export, export.traits, precision=precision)


def _infer(request: ov.InferRequest, image: Pixels) -> NDArray[Any]:
    """Its one output for one picture, the batch's axis taken off."""
    request.infer({0: np.ascontiguousarray(image)[None]}, share_inputs=True)
    found: NDArray[Any] = request.get_output_tensor(0).data[0].copy()
    return found


def _size(image: Pixels) -> Size:
    return image.shape[0], image.shape[1]
