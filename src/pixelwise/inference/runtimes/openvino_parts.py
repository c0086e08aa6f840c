"""The graph of an export, changed to compute windows as parts of their picture: see `PartRuntime`.

A loaded graph is changed, not the file, so that what NNCF has quantised is changed likewise. Each
resize becomes two lookups and a mixture along either axis, with where to look as inputs; each image
pooling becomes an input with the mean of the whole picture; or the pooled map becomes the output.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13

from pixelwise.inference.runtimes.geometry import MapSizes, Size, reads

SPATIAL = (2, 3)  # the axes of height and width in (B, C, H, W)
Means = tuple[NDArray[np.float32], ...]


class PartGraphs:
    """The graphs that are made of `model`, (1, H, W, N) to logits, and what they are given."""

    def __init__(self, model: ov.Model) -> None:
        self._model = model
        ordered = model.get_ordered_ops()
        self._resizes = [one.get_friendly_name() for one in ordered if _is_resize(one)]
        self._poolings = [one.get_friendly_name() for one in ordered if _is_pooling(one)]

    def sizes(self, size: Size) -> MapSizes:
        """The maps that a pass over a picture of `size` resizes and pools. Nothing is computed."""
        nodes = _by_name(self._fixed(size))
        resizes = [nodes[name] for name in self._resizes]
        return MapSizes(
            tuple((_size(one.input(0)), _size(one.output(0)), _aligned(one)) for one in resizes),
            tuple(_size(nodes[name].input(0)) for name in self._poolings),
        )

    def for_logits(self, size: Size) -> ov.Model:
        """The graph for windows of `size`."""
        model = self._fixed(size)
        return self._changed(model, model.results)

    def for_sums(self, size: Size, number: int) -> ov.Model:
        """The same up to the map of pooling `number`, (1, C, h, w)."""
        model = self._fixed(size)
        pooled = _by_name(model)[self._poolings[number]].input_value(0)
        return self._changed(model, [opset13.result(pooled)])

    def inputs(
        self, sizes: MapSizes, lines: list[NDArray[np.float64]], means: Means
    ) -> dict[str, NDArray[Any]]:
        """What the graphs may ask for beside the window, whose maps have these sizes."""
        found: dict[str, NDArray[Any]] = {}
        for name, (before, after, _), both in zip(self._resizes, sizes.resized, lines, strict=True):
            for side, line in enumerate(both):
                index, part = reads(line, before=before[side], after=after[side])
                found[f"{name} index {side}"], found[f"{name} part {side}"] = index, part
        for name, mean in zip(self._poolings, means, strict=False):
            found[name] = mean.reshape(1, -1, 1, 1)
        return found

    def _fixed(self, size: Size) -> ov.Model:
        model = self._model.clone()
        model.reshape([1, *size, model.input(0).partial_shape[3].get_length()])
        return model

    def _changed(self, model: ov.Model, results: list[Any]) -> ov.Model:
        """What `results` need of `model`, its resizes and poolings changed."""
        nodes = _by_name(ov.Model(results, model.get_parameters(), "part"))
        inputs: list[Any] = []
        for name in self._resizes:
            if name in nodes:
                inputs += _replace_resize(nodes[name])
        for name in self._poolings:
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
        before, after = _size(resize.input(0))[side], _size(resize.output(0))[side]
        index = _input(f"{name} index {side}", [after], np.int32)
        part = _input(f"{name} part {side}", [after], np.float32)
        following = opset13.minimum(opset13.add(index, np.int32(1)), np.int32(before - 1))
        weight = opset13.reshape(part, [after if at == axis else 1 for at in range(4)], False)
        one, other = (opset13.gather(maps, at, np.int32(axis)) for at in (index, following))
        maps = opset13.add(one, opset13.multiply(opset13.subtract(other, one), weight))
        inputs += [index, part]
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
