"""The graph of an export, changed to compute tiles as parts of their image: see `TilingRuntime`.

A loaded graph is changed, not the file, so that what NNCF has quantized is changed likewise. It
becomes what `graph_parts` says, or the pooled map becomes its output.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13

from pixelwise.inference.runtimes.graph_tiling import SPATIAL, lookup
from pixelwise.inference.runtimes.tile_geometry import MapSizes, Size


class PartGraphs:
    """The graphs that are made of `model`, (1, H, W, N) to logits."""

    def __init__(self, model: ov.Model) -> None:
        self._model = model
        ordered = model.get_ordered_ops()
        self.resizes = [one.get_friendly_name() for one in ordered if _is_resize(one)]
        self.poolings = [one.get_friendly_name() for one in ordered if _is_pooling(one)]

    def sizes(self, size: Size) -> MapSizes:
        """The maps that a pass over an image of `size` resizes and pools. Nothing is computed."""
        nodes = _by_name(self._fixed(size))
        resizes = [nodes[name] for name in self.resizes]
        return MapSizes(
            tuple((_size(one.input(0)), _size(one.output(0)), _aligned(one)) for one in resizes),
            tuple(_size(nodes[name].input(0)) for name in self.poolings),
        )

    def for_logits(self, size: Size) -> ov.Model:
        """The graph for tiles of `size`."""
        model = self._fixed(size)
        return self._changed(model, model.results)

    def for_sums(self, size: Size, number: int) -> ov.Model:
        """The same up to the map of pooling `number`, (1, C, h, w)."""
        model = self._fixed(size)
        pooled = _by_name(model)[self.poolings[number]].input_value(0)
        return self._changed(model, [opset13.result(pooled)])

    def _fixed(self, size: Size) -> ov.Model:
        model = self._model.clone()
        model.reshape([1, *size, model.input(0).partial_shape[3].get_length()])
        return model

    def _changed(self, model: ov.Model, results: list[Any]) -> ov.Model:
        """What `results` need of `model`, its resizes and poolings changed."""
        nodes = _by_name(ov.Model(results, model.get_parameters(), "part"))
        inputs: list[Any] = []
        for name in self.resizes:
            if name in nodes:
                inputs += _replace_resize(nodes[name])
        for name in self.poolings:
            if name in nodes:
                mean = _input(name, list(nodes[name].output(0).shape), np.float32)
                _replace(nodes[name], mean)
                inputs.append(mean)
        return ov.Model(results, [*model.get_parameters(), *inputs], "part")


def _replace_resize(resize: Any) -> list[Any]:
    """Look up along rows and columns instead, and mix; the inputs that say where."""
    name, maps = resize.get_friendly_name(), resize.input_value(0)
    inputs = []
    for side, axis in enumerate(SPATIAL):
        length, names = _size(resize.output(0))[side], lookup(name, side)
        before, after = (_input(one, [length], np.int32) for one in names[:2])
        along = [length if at == axis else 1 for at in range(4)]
        part = _input(names[2], along, np.float32)
        one, other = (opset13.gather(maps, at, np.int32(axis)) for at in (before, after))
        maps = opset13.add(one, opset13.multiply(opset13.subtract(other, one), part))
        inputs += [before, after, part]
    _replace(resize, maps)
    return inputs


def _replace(node: Any, other: Any) -> None:
    for user in node.output(0).get_target_inputs():
        user.replace_source_output(other.output(0))


def _input(name: str, shape: list[int], kind: type) -> Any:
    parameter = opset13.parameter(shape, kind, name=name)
    parameter.output(0).set_names({name})
    return parameter


def _by_name(model: ov.Model) -> dict[str, Any]:
    return {one.get_friendly_name(): one for one in model.get_ordered_ops()}


def _is_resize(node: Any) -> bool:
    if node.get_type_name() != "Interpolate":
        return False
    return bool(node.get_attributes()["mode"] == "linear_onnx")


def _is_pooling(node: Any) -> bool:
    if node.get_type_name() != "ReduceMean":
        return False
    axes = node.input_value(1).get_node()
    return axes.get_type_name() == "Constant" and tuple(axes.get_data().tolist()) == SPATIAL


def _aligned(resize: Any) -> bool:
    return bool(resize.get_attributes()["coordinate_transformation_mode"] == "align_corners")


def _size(port: Any) -> Size:
    """Of the maps (1, C, h, w) that go through it."""
    _, _, height, width = port.get_shape()
    return height, width
