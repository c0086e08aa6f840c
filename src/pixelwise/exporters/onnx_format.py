"""ONNX: model.onnx."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from torch.export import ExportedProgram

from pixelwise.data.pixel_format import Pixels
from pixelwise.exporters.formats import OUTPUTS, ExportFormat, Labels
from pixelwise.inference.runtimes.onnx.onnx_runtime import infer
from pixelwise.inference.runtimes.onnx.onnx_tile_graphs import open_session

MODEL_FILE = "model.onnx"
WEIGHTED_LAYERS = {"Conv", "ConvTranspose", "MatMul", "Gemm"}


class ONNXFormat(ExportFormat):
    """Write ONNX models and quantize them."""

    corrects_all_biases = False

    def write(self, program: ExportedProgram, folder: Path) -> str:
        onnx_program = torch.onnx.export(
            program, input_names=["image"], output_names=list(OUTPUTS), verbose=False
        )
        assert onnx_program is not None
        onnx_program.save(folder / MODEL_FILE)  # weights of more than 2 GB go to a second file
        return MODEL_FILE

    def read(self, path: Path) -> Any:
        return onnx.load(path)

    def save(self, model: Any, folder: Path) -> str:
        onnx.save(model, folder / MODEL_FILE)
        return MODEL_FILE

    def classifier(self, model: Any) -> Callable[[Pixels], Labels]:
        session = open_session(model.SerializeToString())
        return lambda image: infer(session, image, "labels")

    def float_layers(self, model: Any) -> list[str]:
        producers = {name: node for node in model.graph.node for name in node.output}
        return [
            node.name
            for node in model.graph.node
            if node.op_type in WEIGHTED_LAYERS
            and getattr(producers.get(node.input[1]), "op_type", "") != "DequantizeLinear"
        ]


FORMAT = ONNXFormat()
