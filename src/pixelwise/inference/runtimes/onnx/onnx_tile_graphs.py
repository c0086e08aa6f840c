"""ONNX graphs that evaluate tiles as crops of their image, see `tile_graphs`.

The model in memory is modified, not the file. This needs the package onnx, which predicting whole
images does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import onnxruntime

from pixelwise.inference.export_manifest import ExportManifest
from pixelwise.inference.runtimes.tile_geometry import MapSizes, Size
from pixelwise.inference.runtimes.tile_graphs import SPATIAL_AXES, resize_input_names
from pixelwise.process_settings import thread_limit


class ONNXTileGraphs:
    """Derive models for tiles of any size from a model (1, H, W, N) to logits.

    Args:
        export: The export of the model, which is read when the first tile needs it.
    """

    def __init__(self, export: ExportManifest) -> None:
        self._export = export

    @property
    def resizes(self) -> list[str]:
        """Names of the resizes, in order of computation."""
        return [node.output[0] for node in self._resizes]

    @property
    def poolings(self) -> list[str]:
        """Names of the image poolings, in order of computation."""
        return [node.output[0] for node in self._poolings]

    def sizes(self, size: Size) -> MapSizes:
        """Return the sizes of the resized and pooled maps for an image, without computing them."""
        maps = [name for node in self._resizes for name in (node.input[0], node.output[0])]
        maps += [node.input[0] for node in self._poolings]
        if not maps:
            return MapSizes((), ())
        model = self._subgraph(
            self._source.graph.node, self._source.graph.input, dict.fromkeys(maps)
        )
        _, *sides, _ = model.graph.input[0].type.tensor_type.shape.dim
        for side, length in zip(sides, size, strict=True):
            side.dim_value = length
        # ONNX Runtime infers the shapes of all maps when it opens a model.
        outputs = open_session(model.SerializeToString()).get_outputs()
        shapes: dict[str, Size] = {node.name: (node.shape[2], node.shape[3]) for node in outputs}
        return MapSizes(
            tuple(
                (shapes[node.input[0]], shapes[node.output[0]], _aligns_corners(node))
                for node in self._resizes
            ),
            tuple(shapes[node.input[0]] for node in self._poolings),
        )

    def model(self, pooling: int | None) -> bytes:
        """Return the model that computes the logits of tiles, or the input of an image pooling.

        Args:
            pooling: Number of the image pooling, None for the logits.
        """
        output = "logits" if pooling is None else self._poolings[pooling].input[0]
        nodes: list[Any] = []
        inputs = list(self._source.graph.input)
        for node in self._source.graph.node:
            if _is_resize(node):
                gathers, positions = _replace_resize(node)
                nodes += gathers
                inputs += positions
            elif self._is_pooling(node):
                inputs.append(_float_info(node.output[0], [1, None, 1, 1]))
            else:
                nodes.append(node)
        serialized: bytes = self._subgraph(nodes, inputs, [output]).SerializeToString()
        return serialized

    @cached_property
    def _source(self) -> Any:
        import onnx

        return onnx.load(self._export.unchanged_path())

    @cached_property
    def _resizes(self) -> list[Any]:
        return [node for node in self._source.graph.node if _is_resize(node)]

    @cached_property
    def _poolings(self) -> list[Any]:
        return [node for node in self._source.graph.node if self._is_pooling(node)]

    def _is_pooling(self, node: Any) -> bool:
        if node.op_type != "ReduceMean" or len(node.input) < 2:
            return False
        from onnx.numpy_helper import to_array

        axes = [value for value in self._source.graph.initializer if value.name == node.input[1]]
        return len(axes) == 1 and tuple(to_array(axes[0]).tolist()) == SPATIAL_AXES

    def _subgraph(self, nodes: Sequence[Any], inputs: Iterable[Any], outputs: Iterable[str]) -> Any:
        """Return a model of the nodes that `outputs` depend on."""
        from onnx import ModelProto

        needed, kept = set(outputs), []
        for node in reversed(nodes):  # nodes are in topological order
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        source = self._source
        model = ModelProto(ir_version=source.ir_version, opset_import=source.opset_import)
        graph = model.graph
        graph.name = "tile"
        graph.node.extend(reversed(kept))
        graph.initializer.extend(
            value for value in source.graph.initializer if value.name in needed
        )
        graph.input.extend(value for value in inputs if value.name in needed)
        graph.output.extend(_float_info(name, None) for name in outputs)
        return model


def open_session(model: Path | bytes, *, threads: int = 0) -> onnxruntime.InferenceSession:
    """Open a model from a file or from bytes, with `threads` per image; 0: all usable cores."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only, which are also raised as exceptions
    options.intra_op_num_threads = threads or thread_limit()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _replace_resize(resize: Any) -> tuple[list[Any], list[Any]]:
    """Return the nodes that gather and interpolate along both axes, and their new inputs."""
    from onnx import TensorProto, helper

    name, maps = resize.output[0], resize.input[0]
    nodes, inputs = [], []
    for side, axis in enumerate(SPATIAL_AXES):
        lower, upper, weight = resize_input_names(name, side)
        inputs += [
            helper.make_tensor_value_info(lower, TensorProto.INT32, [None]),
            helper.make_tensor_value_info(upper, TensorProto.INT32, [None]),
            _float_info(weight, [None if i == axis else 1 for i in range(4)]),
        ]
        at_lower, at_upper, difference, product = (
            f"{name} {value} {side}" for value in ("at lower", "at upper", "difference", "product")
        )
        result = name if axis == SPATIAL_AXES[-1] else f"{name} vertical"
        nodes += [
            helper.make_node("Gather", [maps, lower], [at_lower], axis=axis),
            helper.make_node("Gather", [maps, upper], [at_upper], axis=axis),
            helper.make_node("Sub", [at_upper, at_lower], [difference]),
            helper.make_node("Mul", [difference, weight], [product]),
            helper.make_node("Add", [at_lower, product], [result]),
        ]
        maps = result
    return nodes, inputs


def _float_info(name: str, shape: list[int | None] | None) -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _is_resize(node: Any) -> bool:
    return node.op_type == "Resize" and _attribute(node, "mode") == "linear"


def _aligns_corners(resize: Any) -> bool:
    return _attribute(resize, "coordinate_transformation_mode") == "align_corners"


def _attribute(node: Any, name: str) -> str:
    """Return a text attribute, or an empty string if the node does not have it."""
    return next((value.s.decode() for value in node.attribute if value.name == name), "")
