"""Map the tensors of a file to the names and shapes of a network.

Every tensor of the file is either used, known to be unused, or reported as a problem.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pixelwise.errors import InputError
from pixelwise.weights.import_weights import ImportedWeights

MAX_LISTED = 6  # layers named in one line


@dataclass(frozen=True)
class WeightMapping:
    """How the tensors of a file fill a network.

    Attributes:
        path: The file.
        names: Names in the file by the network's names.
        tensors: Tensors in the network's shapes, by the network's names.
        absent: Names of the network that the file is not expected to have.
        unused: Layers of the file that are known to be unused, as text.
        problems: One line for each kind of mismatch, or for each layer.
        mismatches: Number of tensors that do not match.
    """

    path: Path
    names: dict[str, str]
    tensors: dict[str, Tensor]
    absent: tuple[str, ...]
    unused: str
    problems: tuple[str, ...]
    mismatches: int

    def check(self) -> None:
        """Raise InputError, with one line per problem, unless all tensors match and are finite."""
        if self.problems:
            raise InputError(*self.problems)
        not_finite = [
            self.names[name]
            for name, tensor in self.tensors.items()
            if not torch.isfinite(tensor).all()
        ]
        if not_finite:
            raise InputError(
                f"{self.path}: {_layers(not_finite, ())} contains NaN or infinite values: use "
                "another file"
            )


def source_names(names: Iterable[str], prefixes: Mapping[str, str]) -> dict[str, str]:
    """Translate a network's names to a file's names, which differ only in their prefix.

    Args:
        names: Names of the network.
        prefixes: Prefixes in the file by the network's prefixes, such as {"backbone.": ""}.

    Returns:
        Names in the file by the network's names. Names without any of the prefixes are left out.
    """
    return {
        ours: theirs + ours.removeprefix(prefix)
        for ours in names
        for prefix, theirs in prefixes.items()
        if ours.startswith(prefix)
    }


def is_step_counter(name: str) -> bool:
    """Whether a tensor counts the steps of batch normalization.

    Older files lack these counters, and only a momentum of None needs them.
    """
    return name.endswith("num_batches_tracked")


def map_weights(
    wanted: Mapping[str, Tensor],
    imported: ImportedWeights,
    names: Mapping[str, str],
    *,
    network: str,
    unused: tuple[str, ...] = (),
    built_in: Mapping[str, Tensor] | None = None,
) -> WeightMapping:
    """Give the tensors of a file the names and shapes of a network.

    Args:
        wanted: State dict of the network; only shapes and types are used.
        imported: The file.
        names: Names in the file by the network's names. Other tensors of the network are not
            expected in the file.
        network: Name of the network, for error messages.
        unused: Prefixes of the file's tensors that may remain unused.
        built_in: Tensors that the file must have, by its names, but that the network computes
            itself.
    """
    built_in = built_in or {}
    have = imported.tensors
    known = {*names.values(), *built_in}
    missing = [
        name
        for name in (*names.values(), *built_in)
        if name not in have and not is_step_counter(name)
    ]
    remaining = [name for name in have if name not in known]
    unexpected = [name for name in remaining if not name.startswith(unused)]
    hint = "is it for another network?"
    lines = []
    if missing:
        lines.append(f"lacks {_layers(missing, have)}, which {network} needs: {hint}")
    if unexpected:
        lines.append(f"has {_layers(unexpected, known)}, which {network} does not use: {hint}")
    mismatches = len(missing) + len(unexpected)
    tensors: dict[str, Tensor] = {}
    expected = {theirs: wanted[ours] for ours, theirs in names.items()}
    for theirs, like in {**expected, **built_in}.items():
        if theirs not in have:
            continue
        reshaped = _reshape(have[theirs], tuple(like.shape))
        if reshaped is None:
            shape, needed = tuple(have[theirs].shape), tuple(like.shape)
            lines.append(f"{theirs} has shape {shape}, but {network} needs {needed}: {hint}")
        elif reshaped.is_floating_point() != like.is_floating_point():
            lines.append(
                f"{theirs} has numbers of type {str(reshaped.dtype).removeprefix('torch.')}, but "
                f"{network} needs {str(like.dtype).removeprefix('torch.')}: give the file before "
                "it was quantized"
            )
        elif theirs in built_in and not torch.allclose(reshaped, like, rtol=1e-5, atol=1e-7):
            lines.append(f"{theirs} differs from the fixed values of {network}: {hint}")
        else:
            tensors[theirs] = reshaped.to(like.dtype)
            continue
        mismatches += 1
    return WeightMapping(
        path=imported.path,
        names=dict(names),
        tensors={ours: tensors[theirs] for ours, theirs in names.items() if theirs in tensors},
        absent=tuple(name for name in wanted if name not in names and not is_step_counter(name)),
        unused=_layers([name for name in remaining if name.startswith(unused)], known),
        problems=tuple(f"{imported.path}: {line}" for line in lines),
        mismatches=mismatches,
    )


def _reshape(tensor: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """Reshape `tensor` if it is another form of the same layer, else return None.

    A fully connected layer on a map equals a kernel of the map's size. Early versions of Caffe gave
    every blob four sizes, with leading ones.
    """
    equivalent = {shape}
    if len(shape) == 4:
        connected = (shape[0], math.prod(shape[1:]))
        equivalent |= {connected, (1, 1, *connected)}
    elif len(shape) == 1:
        equivalent.add((1, 1, 1, *shape))
    return tensor.reshape(shape) if tuple(tensor.shape) in equivalent else None


def _layers(names: Iterable[str], others: Iterable[str]) -> str:
    """List the layers of tensors; if `others` has a part of a layer, the tensor is named."""
    partial = {_layer(name) for name in others}
    layers = list(
        dict.fromkeys(name if _layer(name) in partial else _layer(name) for name in names)
    )
    more = f" and {len(layers) - MAX_LISTED} more" if len(layers) > MAX_LISTED else ""
    return ", ".join(layers[:MAX_LISTED]) + more


def _layer(name: str) -> str:
    if "/" in name:  # TensorFlow's batch normalization is a part of its convolution
        return name.rpartition("/")[0].removesuffix("/BatchNorm")
    return name.rpartition(".")[0] or name
