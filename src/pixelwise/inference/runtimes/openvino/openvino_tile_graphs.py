"""OpenVINO graphs that evaluate tiles as crops of their image, see `tile_graphs`.

The loaded graph is modified, not the file, so that graphs quantized by NNCF are modified likewise.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import openvino as ov
from openvino import opset13
from pixelwise.inference.runtimes.openvino.replace_node import replace_node
from pixelwise.inference.runtimes.tile_geometry import MapSizes, Size
from pixelwise.inference.runtimes.tile_graphs import SPATIAL_AXES, resize_input_names


class OpenVINOTileGraphs:
    """Derive graphs for tiles from a model (1, H, W, N) to logits."""

    def __init__(self, model: ov.Model) -> None:
        self._model = model
        nodes = model.get_ordered_ops()
        self.resizes = [node.get_friendly_name() for node in nodes if _is_resize(node)]
        self.poolings = [node.get_friendly_name() for node in nodes if _is_pooling(node)]

    def sizes(self, size: Size) -> MapSizes:
        """Return the sizes of the resized and pooled maps for an image, without computing them."""
        nodes = _nodes_by_name(self._reshaped(size))
        resizes = [nodes[name] for name in self.resizes]
        return MapSizes(
            tuple(
                (_map_size(node.input(0)), _map_size(node.output(0)), _aligns_corners(node))
                for node in resizes
            ),
            tuple(_map_size(nodes[name].input(0)) for name in self.poolings),
        )

    def model(self, size: Size, pooling: int | None) -> ov.Model:
        """Return the model that computes the logits of tiles, or the input of an image pooling.

        Args:
            size: Height and width of the tiles.
            pooling: Number of the image pooling, None for the logits.
        """
        model = self._reshaped(size)
        results = model.results
        if pooling is not None:
            pooled = _nodes_by_name(model)[self.poolings[pooling]].input_value(0)
            results = [opset13.result(pooled)]
        nodes = _nodes_by_name(ov.Model(results, model.get_parameters(), "tile"))
        inputs: list[Any] = []
        for name in self.resizes:
            if name in nodes:
                inputs += _replace_resize(nodes[name])
        for name in self.poolings:
            if name in nodes:
                mean = _parameter(name, list(nodes[name].output(0).shape), np.float32)
                replace_node(nodes[name], mean)
                inputs.append(mean)
        return ov.Model(results, [*model.get_parameters(), *inputs], "tile")

    def _reshaped(self, size: Size) -> ov.Model:
        model = self._model.clone()
        model.reshape([1, *size, model.input(0).partial_shape[3].get_length()])
        return model


def _replace_resize(resize: Any) -> list[Any]:
    """Gather and interpolate along both axes instead of resizing; return the new inputs."""
    name, maps = resize.get_friendly_name(), resize.input_value(0)
    inputs = []
    for side, axis in enumerate(SPATIAL_AXES):
        length, names = _map_size(resize.output(0))[side], resize_input_names(name, side)
        lower, upper = (_parameter(input_name, [length], np.int32) for input_name in names[:2])
        weight_shape = [length if i == axis else 1 for i in range(4)]
        weight = _parameter(names[2], weight_shape, np.float32)
        at_lower, at_upper = (opset13.gather(maps, i, np.int32(axis)) for i in (lower, upper))
        difference = opset13.subtract(at_upper, at_lower)
        maps = opset13.add(at_lower, opset13.multiply(difference, weight))
        inputs += [lower, upper, weight]
    replace_node(resize, maps)
    return inputs


def _parameter(name: str, shape: list[int], dtype: type) -> Any:
    parameter = opset13.parameter(shape, dtype, name=name)
    parameter.output(0).set_names({name})
    return parameter


def _nodes_by_name(model: ov.Model) -> dict[str, Any]:
    return {node.get_friendly_name(): node for node in model.get_ordered_ops()}


def _is_resize(node: Any) -> bool:
    if node.get_type_name() != "Interpolate":
        return False
    return bool(node.get_attributes()["mode"] == "linear_onnx")


def _is_pooling(node: Any) -> bool:
    if node.get_type_name() != "ReduceMean":
        return False
    axes = node.input_value(1).get_node()
    return axes.get_type_name() == "Constant" and tuple(axes.get_data().tolist()) == SPATIAL_AXES


def _aligns_corners(resize: Any) -> bool:
    return bool(resize.get_attributes()["coordinate_transformation_mode"] == "align_corners")


def _map_size(port: Any) -> Size:
    """Return the size of a feature map (1, C, h, w)."""
    _, _, height, width = port.get_shape()
    return height, width
