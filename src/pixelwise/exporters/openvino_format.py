"""OpenVINO: model.xml and model.bin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch.export import ExportedProgram

import openvino as ov
from openvino import opset1, opset13
from pixelwise.data.pixel_format import Pixels
from pixelwise.exporters.formats import OUTPUTS, ExportFormat, Labels
from pixelwise.inference.runtimes.openvino.replace_node import replace_node

ROUNDING = {"floor": "floor", "ceil": "ceil", "ceil_torch": "ceil"}
WEIGHTED_LAYERS = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"}


class OpenVINOFormat(ExportFormat):
    """Write OpenVINO models and quantize them."""

    corrects_all_biases = True

    def write(self, program: ExportedProgram, folder: Path) -> str:
        model = ov.convert_model(program)
        lower_max_pools(model)
        lower_argmax(model)
        model.input(0).set_names({"image"})
        channels = program.example_inputs[0][0].shape[3]
        model.reshape([1, -1, -1, channels])  # the converter loses which sizes are fixed
        for output, name in zip(model.outputs, OUTPUTS, strict=True):
            output.set_names({name})
        return self.save(model, folder)

    def read(self, path: Path) -> ov.Model:
        return ov.Core().read_model(path)

    def save(self, model: ov.Model, folder: Path) -> str:
        ov.save_model(model, folder / "model.xml", compress_to_fp16=False)
        return "model.xml"

    def classifier(self, model: ov.CompiledModel) -> Callable[[Pixels], Labels]:
        request = model.create_infer_request()

        def classify(image: Pixels) -> Labels:
            request.infer({"image": np.ascontiguousarray(image)[None]})
            labels: Labels = request.get_tensor("labels").data[0]
            return labels

        return classify

    def float_layers(self, model: ov.Model) -> list[str]:
        return [
            str(node.get_friendly_name())
            for node in model.get_ordered_ops()
            if node.get_type_name() in WEIGHTED_LAYERS
            and not _is_quantized(node.input_value(1).get_node())
        ]


FORMAT = OpenVINOFormat()


def _is_quantized(node: Any) -> bool:
    """Return whether weights are integers that are only scaled and reshaped."""
    while node.get_type_name() in {"Convert", "Multiply", "Subtract", "Reshape", "Transpose"}:
        node = node.input_value(0).get_node()
    if node.get_type_name() == "FakeQuantize":
        return True
    return node.get_type_name() == "Constant" and bool(node.get_element_type().is_integral())


def lower_max_pools(model: ov.Model) -> None:
    """Replace max pools by operations of opset 1 that compute the same, in place.

    PyTorch's max pools become operations of opset 14, which also return indices and may be
    dilated. OpenVINO does not propagate quantization through them: the convolution after such a
    pool stays in float32.
    """
    for pool in model.get_ops():
        if pool.get_type_name() != "MaxPool" or pool.get_type_info().version_id == "opset1":
            continue
        attributes = pool.get_attributes()
        if set(attributes.get("dilations", ())) - {1} or pool.output(1).get_target_inputs():
            continue
        padded = any((*attributes["pads_begin"], *attributes["pads_end"]))
        sides = zip(attributes["strides"], attributes["kernel"], strict=True)
        overlapping = all(stride <= side for stride, side in sides)
        # Otherwise PyTorch may drop the last window if it begins beyond the map.
        if attributes["rounding_type"] == "ceil_torch" and (padded or not overlapping):
            continue
        lowered = opset1.max_pool(
            pool.input_value(0),
            strides=attributes["strides"],
            pads_begin=attributes["pads_begin"],
            pads_end=attributes["pads_end"],
            kernel_shape=attributes["kernel"],
            rounding_type=ROUNDING[attributes["rounding_type"]],
            auto_pad=attributes["auto_pad"],
        )
        lowered.set_friendly_name(pool.get_friendly_name())
        replace_node(pool, lowered)


def lower_argmax(model: ov.Model) -> None:
    """Compute the argmax over classes (axis 1) with 32-bit indices and classes first, in place.

    Convolutions leave the values of a pixel side by side, where OpenVINO searches each pixel on its
    own. With classes first, a whole vector of pixels is compared at once, which takes a fifth of
    the time, and 32-bit indices take half the time of 64 bits. The result is the same.
    """
    for node in model.get_ops():
        attributes = node.get_attributes()
        if node.get_type_name() != "TopK" or attributes["index_element_type"] != "i64":
            continue
        if attributes["axis"] != 1 or node.output(0).get_target_inputs():  # the values are used
            continue
        swap = np.array([1, 0, 2, 3], np.int32)
        lowered = opset13.topk(
            opset13.transpose(node.input_value(0), swap),
            node.input_value(1),
            0,
            attributes["mode"],
            attributes["sort"],
            index_element_type="i32",
            stable=attributes["stable"],
        )
        indices = opset13.convert(opset13.transpose(lowered.output(1), swap), "i64")
        for user in node.output(1).get_target_inputs():
            user.replace_source_output(indices.output(0))
