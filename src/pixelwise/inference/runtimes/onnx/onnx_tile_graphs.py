"""A model in ONNX's format, changed to compute tiles as parts of their image: `graph_parts`.

The model in memory is changed, not the file. That takes the package onnx, which whole images do
not ask for.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import onnxruntime

from pixelwise.inference.runtimes.graph_tiling import SPATIAL, lookup
from pixelwise.inference.runtimes.tile_geometry import MapSizes, Size


class PartGraphs:
    """The models that are made of the one in `path`, (1, H, W, N) to logits, for all sizes.

    It is read when tiles first ask for it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def resizes(self) -> list[str]:
        return [node.output[0] for node in self._nodes if _is_resize(node)]

    @cached_property
    def poolings(self) -> list[str]:
        return [node.output[0] for node in self._nodes if self._is_pooling(node)]

    def sizes(self, size: Size) -> MapSizes:
        """The maps that a pass over an image of `size` resizes and pools. Nothing is computed."""
        resizes = [node for node in self._nodes if _is_resize(node)]
        poolings = [node for node in self._nodes if self._is_pooling(node)]
        maps = [name for node in resizes for name in (node.input[0], node.output[0])]
        maps += [node.input[0] for node in poolings]
        if not maps:
            return MapSizes((), ())
        model = self._model_of(self._nodes, self._source.graph.input, dict.fromkeys(maps))
        _, *sides, _ = model.graph.input[0].type.tensor_type.shape.dim
        for side, length in zip(sides, size, strict=True):
            side.dim_value = length
        # ONNX Runtime finds the shapes of all maps when it opens a model.
        outputs = open_session(model.SerializeToString()).get_outputs()
        found: dict[str, Size] = {one.name: (one.shape[2], one.shape[3]) for one in outputs}
        return MapSizes(
            tuple((found[one.input[0]], found[one.output[0]], _aligned(one)) for one in resizes),
            tuple(found[one.input[0]] for one in poolings),
        )

    def for_logits(self) -> bytes:
        """The model for tiles."""
        return self._changed("logits")

    def for_sums(self, number: int) -> bytes:
        """The same up to the map of pooling `number`, (1, C, h, w)."""
        pooling = self.poolings[number]
        (pooled,) = (node.input[0] for node in self._nodes if node.output[0] == pooling)
        return self._changed(pooled)

    @cached_property
    def _source(self) -> Any:
        import onnx

        return onnx.load(self._path)

    @property
    def _nodes(self) -> list[Any]:
        return list(self._source.graph.node)

    def _is_pooling(self, node: Any) -> bool:
        if node.op_type != "ReduceMean" or len(node.input) < 2:
            return False
        from onnx.numpy_helper import to_array

        axes = [one for one in self._source.graph.initializer if one.name == node.input[1]]
        return len(axes) == 1 and tuple(to_array(axes[0]).tolist()) == SPATIAL

    def _changed(self, output: str) -> bytes:
        """What `output` needs of the model, its resizes and poolings changed."""
        from onnx import TensorProto, helper

        nodes: list[Any] = []
        inputs = list(self._source.graph.input)
        for node in self._nodes:
            if _is_resize(node):
                changed, asked = _lookups(node)
                nodes += changed
                inputs += asked
            elif self._is_pooling(node):
                shape = [1, None, 1, 1]
                inputs.append(
                    helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, shape)
                )
            else:
                nodes.append(node)
        serialized: bytes = self._model_of(nodes, inputs, [output]).SerializeToString()
        return serialized

    def _model_of(self, nodes: list[Any], inputs: Iterable[Any], outputs: Iterable[str]) -> Any:
        """A model of what `outputs` need."""
        from onnx import ModelProto, TensorProto, helper

        wanted, kept = set(outputs), []
        for node in reversed(nodes):  # they stand in the order of the pass
            if wanted.intersection(node.output):
                wanted.update(node.input)
                kept.append(node)
        source = self._source
        model = ModelProto(ir_version=source.ir_version, opset_import=source.opset_import)
        graph = model.graph
        graph.name = "part"
        graph.node.extend(reversed(kept))
        graph.initializer.extend(one for one in source.graph.initializer if one.name in wanted)
        graph.input.extend(one for one in inputs if one.name in wanted)
        graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs
        )
        return model


def open_session(model: Path | bytes, *, threads: int = 0) -> onnxruntime.InferenceSession:
    """A model, by path or as bytes, ready to run. threads: of one image; 0 for all cores."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only; they come as exceptions too
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _lookups(resize: Any) -> tuple[list[Any], list[Any]]:
    """Nodes that look up along rows and columns instead, and mix; the inputs that say where."""
    from onnx import TensorProto, helper

    name, maps = resize.output[0], resize.input[0]
    nodes, inputs = [], []
    for side, axis in enumerate(SPATIAL):
        before, after, part = lookup(name, side)
        along = [None if at == axis else 1 for at in range(4)]
        inputs += [
            helper.make_tensor_value_info(before, TensorProto.INT32, [None]),
            helper.make_tensor_value_info(after, TensorProto.INT32, [None]),
            helper.make_tensor_value_info(part, TensorProto.FLOAT, along),
        ]
        one, other, difference, share = (
            f"{name} {what} {side}" for what in ("one", "other", "difference", "share")
        )
        mixed = name if axis == SPATIAL[-1] else f"{name} mixed"
        nodes += [
            helper.make_node("Gather", [maps, before], [one], axis=axis),
            helper.make_node("Gather", [maps, after], [other], axis=axis),
            helper.make_node("Sub", [other, one], [difference]),
            helper.make_node("Mul", [difference, part], [share]),
            helper.make_node("Add", [one, share], [mixed]),
        ]
        maps = mixed
    return nodes, inputs


def _is_resize(node: Any) -> bool:
    return node.op_type == "Resize" and _text(node, "mode") == "linear"


def _aligned(resize: Any) -> bool:
    return _text(resize, "coordinate_transformation_mode") == "align_corners"


def _text(node: Any, name: str) -> str:
    """An attribute, empty where it is not given."""
    return next((one.s.decode() for one in node.attribute if one.name == name), "")
