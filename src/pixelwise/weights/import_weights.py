"""Foreign weights: read without running any code in them, laid onto a network's names and shapes.

Every tensor of a file finds its place, is among those known to be of no use, or is a fault.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pixelwise.errors import InputError
from pixelwise.weights.importers.caffe import is_prototxt, looks_like_caffe, read_caffemodel
from pixelwise.weights.importers.tensorflow_checkpoint import is_checkpoint, read_tensorbundle

LISTED = 6  # layers named in one line


@dataclass(frozen=True)
class ImportedWeights:
    """A file of weights.

    tensors: by the file's names; those of Caffe are `LAYER.weight`, `LAYER.bias`.
    kind: who wrote it: "caffe", "pytorch" or "tensorflow".
    """

    path: Path
    tensors: Mapping[str, Tensor]
    kind: str

    @property
    def caffe(self) -> bool:
        return self.kind == "caffe"

    @property
    def segments(self) -> bool:
        """Whether it holds, by PyTorch's names, a backbone and a head and not a classifier."""
        return self.kind == "pytorch" and any(name.startswith("backbone.") for name in self.tensors)


@dataclass(frozen=True)
class WeightMapping:
    """What of a file fits a network.

    places: the file's names by the network's. tensors: by the network's names, in its shapes.
    absent: names of the network that were not looked for.
    unused: layers of the file that are known to be of no use here.
    problems: a line for each kind of fault or layer; faults: tensors that are at fault.
    """

    path: Path
    places: dict[str, str]
    tensors: dict[str, Tensor]
    absent: tuple[str, ...]
    unused: str
    problems: tuple[str, ...]
    faults: int

    def check(self) -> None:
        """Raise InputError, a line for each fault, where not all fits or values are not finite."""
        if self.problems:
            raise InputError(*self.problems)
        endless = [
            self.places[name]
            for name, tensor in self.tensors.items()
            if not torch.isfinite(tensor).all()
        ]
        if endless:
            raise InputError(
                f"{self.path}: {_layers(endless, ())} holds values that are no finite numbers: it "
                "is of no use"
            )


def import_weights(path: Path) -> ImportedWeights:
    """Read a .caffemodel, a PyTorch state dict, or a TensorFlow checkpoint (its files, their prefix
    or folder, or an archive), told apart by how the file begins and is named.

    Raises InputError for anything else and for what is cut off or damaged.
    """
    remedy = "give a .caffemodel, a .pth, or a TensorFlow checkpoint"
    if is_checkpoint(path):
        return ImportedWeights(path, read_tensorbundle(path), "tensorflow")
    if path.is_dir():
        raise InputError(f"{path}: is a folder: {remedy}")
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check the path") from error
    if not head:
        raise InputError(f"{path}: is empty (0 bytes): fetch it again")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
        raise InputError(f"{path}: is a safetensors file: {remedy}")
    if head.startswith((b"PK\x03\x04", b"\x80")):  # a zip archive, or a pickle as of old
        return ImportedWeights(path, read_state_dict(path), "pytorch")
    if path.suffix == ".pb":
        raise InputError(
            f"{path}: is a frozen graph of TensorFlow: give the model.ckpt.index that comes with it"
        )
    if _is_text(head):
        if is_prototxt(head.decode(errors="replace")):
            raise InputError(
                f"{path}: is a prototxt, a network's definition without its weights: give the "
                ".caffemodel"
            )
        raise InputError(f"{path}: is a text and holds no weights: {remedy}")
    if not looks_like_caffe(head):
        raise InputError(f"{path}: is no file of weights that is known here: {remedy}")
    return ImportedWeights(path, read_caffemodel(path), "caffe")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a foreign .pth without running any code in it. Raises InputError if that fails."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and OS errors alike
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: cannot be read as PyTorch weights ({reason}): fetch it again"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path}: holds no state dict (a dict of tensors): save one")
    return state


def by_prefix(names: Iterable[str], prefixes: Mapping[str, str]) -> dict[str, str]:
    """Places for `map_weights`, where names differ in how they begin only.

    prefixes: how a network's names begin, and what stands there in the file's: {"backbone.": ""}.
    Names that begin with none of them have no place.
    """
    return {
        ours: theirs + ours.removeprefix(prefix)
        for ours in names
        for prefix, theirs in prefixes.items()
        if ours.startswith(prefix)
    }


def is_counter(name: str) -> bool:
    """Whether a tensor counts the steps of batch normalization, which older files lack, and only a
    momentum of None needs."""
    return name.endswith("num_batches_tracked")


def map_weights(
    wanted: Mapping[str, Tensor],
    imported: ImportedWeights,
    places: Mapping[str, str],
    *,
    network: str,
    unused: tuple[str, ...] = (),
    built_in: Mapping[str, Tensor] | None = None,
) -> WeightMapping:
    """Give the tensors of a file the names and shapes of a network's state dict.

    wanted: that state dict, of which only shapes and types are looked at.
    places: the file's names by its own; those that are not in it are not looked for.
    network: its name, for messages.
    unused: how names of the file begin that may be left over.
    built_in: what the file has to hold too, by its names, and the network computes by itself.
    """
    built_in = built_in or {}
    have = imported.tensors
    known = {*places.values(), *built_in}
    missing = [
        name for name in (*places.values(), *built_in) if name not in have and not is_counter(name)
    ]
    left = [name for name in have if name not in known]
    surplus = [name for name in left if not name.startswith(unused)]
    other = "is it for another network?"
    lines = []
    if missing:
        lines.append(f"lacks {_layers(missing, have)}, which {network} needs: {other}")
    if surplus:
        lines.append(f"{network} has no place for {_layers(surplus, known)}: {other}")
    faults = len(missing) + len(surplus)
    fitting: dict[str, Tensor] = {}
    expected = {theirs: wanted[ours] for ours, theirs in places.items()}
    for theirs, like in {**expected, **built_in}.items():
        if theirs not in have:
            continue
        shaped = _reshaped(have[theirs], tuple(like.shape))
        if shaped is None:
            is_, needs = tuple(have[theirs].shape), tuple(like.shape)
            lines.append(f"{theirs} is {is_}, {network} needs {needs}: {other}")
        elif theirs in built_in and not torch.allclose(shaped, like, rtol=1e-5, atol=1e-7):
            lines.append(f"{theirs} differs from what {network} has built in: {other}")
        else:
            fitting[theirs] = shaped.to(like.dtype)
            continue
        faults += 1
    return WeightMapping(
        path=imported.path,
        places=dict(places),
        tensors={ours: fitting[theirs] for ours, theirs in places.items() if theirs in fitting},
        absent=tuple(name for name in wanted if name not in places and not is_counter(name)),
        unused=_layers([name for name in left if name.startswith(unused)], known),
        problems=tuple(f"{imported.path}: {line}" for line in lines),
        faults=faults,
    )


def _reshaped(tensor: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """`tensor` in `shape`, where that is the same layer written in another way.

    A fully connected layer on a map is a kernel of the map's size; and Caffe once gave every blob
    four sizes, with ones in front.
    """
    same = {shape}
    if len(shape) == 4:
        connected = (shape[0], math.prod(shape[1:]))
        same |= {connected, (1, 1, *connected)}
    elif len(shape) == 1:
        same.add((1, 1, 1, *shape))
    return tensor.reshape(shape) if tuple(tensor.shape) in same else None


def _layers(names: Iterable[str], others: Iterable[str]) -> str:
    """Tensors as a list of layers; of a layer that the others have in part, the tensor's name."""
    partly = {_layer(name) for name in others}
    layers = list(dict.fromkeys(name if _layer(name) in partly else _layer(name) for name in names))
    more = f" and {len(layers) - LISTED} more" if len(layers) > LISTED else ""
    return ", ".join(layers[:LISTED]) + more


def _layer(name: str) -> str:
    if "/" in name:  # TensorFlow's, where the batch normalization is part of its convolution
        return name.rpartition("/")[0].removesuffix("/BatchNorm")
    return name.rpartition(".")[0] or name


def _is_text(head: bytes) -> bool:
    return not any(byte < 0x20 and byte not in b"\t\n\r\f" for byte in head)
