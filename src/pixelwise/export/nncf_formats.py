"""Model files in memory, as quantization sees them: reading, writing, running, looking inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.pixel_format import Pixels

Labels = NDArray[np.uint8]


class ModelFormat(Protocol):
    """What NNCF's models of one format need of us.

    corrects_in_full: whether NNCF can correct their biases in full. Of ONNX graphs it cuts out
    parts for that, and fails where an input goes to several nodes, as the image does.
    """

    corrects_in_full: bool

    def read(self, path: Path) -> Any:
        """The model in a file."""

    def write(self, model: Any, folder: Path) -> str:
        """Write it into `folder`; returns the file's name."""

    def runner(self, model: Any) -> Callable[[Pixels], Labels]:
        """What predicts with a model that NNCF hands over: (H, W, N) in 0..255 to labels (H, W)."""

    def float_layers(self, model: Any) -> list[str]:
        """The names of the convolutions and products that are not quantized."""


class OpenVINOFormat:
    """model.xml and model.bin."""

    corrects_in_full = True

    def read(self, path: Path) -> Any:
        import openvino as ov

        return ov.Core().read_model(path)

    def write(self, model: Any, folder: Path) -> str:
        import openvino as ov

        ov.save_model(model, folder / "model.xml", compress_to_fp16=False)
        return "model.xml"

    def runner(self, model: Any) -> Callable[[Pixels], Labels]:
        request = model.create_infer_request()  # NNCF hands over a compiled model

        def run(image: Pixels) -> Labels:
            request.infer({"image": np.ascontiguousarray(image)[None]})
            found: Labels = request.get_tensor("labels").data[0]
            return found

        return run

    def float_layers(self, model: Any) -> list[str]:
        layers = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"}
        return [
            str(node.get_friendly_name())
            for node in model.get_ordered_ops()
            if node.get_type_name() in layers and not _is_quantized(node.input_value(1).get_node())
        ]


def _is_quantized(node: Any) -> bool:
    """Whether weights come from whole numbers, through what only scales and reshapes them."""
    passed = {"Convert", "Multiply", "Subtract", "Reshape", "Transpose"}
    while node.get_type_name() in passed:
        node = node.input_value(0).get_node()
    if node.get_type_name() == "FakeQuantize":
        return True
    return node.get_type_name() == "Constant" and bool(node.get_element_type().is_integral())


class ONNXFormat:
    """model.onnx."""

    corrects_in_full = False

    def read(self, path: Path) -> Any:
        import onnx

        return onnx.load(path)

    def write(self, model: Any, folder: Path) -> str:
        import onnx

        onnx.save(model, folder / "model.onnx")
        return "model.onnx"

    def runner(self, model: Any) -> Callable[[Pixels], Labels]:
        import onnxruntime

        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )

        def run(image: Pixels) -> Labels:
            (found,) = session.run(["labels"], {"image": np.ascontiguousarray(image)[None]})
            labels: Labels = found[0]
            return labels

        return run

    def float_layers(self, model: Any) -> list[str]:
        source = {name: node for node in model.graph.node for name in node.output}
        return [
            node.name
            for node in model.graph.node
            if node.op_type in {"Conv", "ConvTranspose", "MatMul", "Gemm"}
            and getattr(source.get(node.input[1]), "op_type", "") != "DequantizeLinear"
        ]


FORMATS: dict[str, ModelFormat] = {"openvino": OpenVINOFormat(), "onnx": ONNXFormat()}
