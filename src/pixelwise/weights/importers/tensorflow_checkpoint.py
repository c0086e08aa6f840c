"""Read TensorFlow checkpoints, format V2 ("tensor bundle"): PREFIX.index and PREFIX.data-*-of-*.

The index is a LevelDB table whose values are messages of tensor_bundle.proto. They locate the bytes
of each tensor in the data files. Blocks of the table and tensors have masked CRC-32C checksums,
which are all verified.
"""

from __future__ import annotations

import gzip
import math
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pixelwise.errors import InputError
from pixelwise.weights.importers.crc32c import masked_crc32c
from pixelwise.weights.importers.leveldb_table import damaged_index, read_table
from pixelwise.weights.importers.protobuf_schema import message_classes

# tensor_bundle.proto, tensor_shape.proto
SCHEMA = {
    "BundleHeaderProto": (("num_shards", 1, "INT32"), ("endianness", 2, "INT32")),
    "Dim": (("size", 1, "INT64"),),
    "TensorShapeProto": (("dim", 2, "Dim*"), ("unknown_rank", 3, "BOOL")),
    "BundleEntryProto": (
        ("dtype", 1, "INT32"),
        ("shape", 2, "TensorShapeProto"),
        ("shard_id", 3, "INT32"),
        ("offset", 4, "INT64"),
        ("size", 5, "INT64"),
        ("crc32c", 6, "FIXED32"),
        ("slices", 7, "BYTES*"),
    ),
}
# Types of types.proto; strings and resources do not occur in networks.
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 19: "<f2"}
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
INDEX = ".index"
DATA = re.compile(r"\.data-\d{5}-of-\d{5}$")
ARCHIVES = (".tar.gz", ".tgz")
MAX_BYTES = 2**32  # read from an archive; the published ones contain half a gigabyte
REMEDY = "give the model.ckpt.index, with the .data-00000-of-00001 next to it"

Data = npt.NDArray[np.uint8]
EMPTY: Data = np.zeros(0, np.uint8)


@dataclass(frozen=True)
class _Files:
    """The files of a checkpoint, on disk or in an archive.

    Attributes:
        path: The path to name in error messages.
        prefix: Common prefix of the file names.
        index: Contents of the index.
        read: Reads another file by its name.
    """

    path: Path
    prefix: str
    index: bytes
    read: Callable[[str], Data]


def checkpoint_files(path: Path) -> tuple[Path, ...]:
    """List the files of a checkpoint on disk.

    Args:
        path: The prefix of the checkpoint, its index, one of its data files, or its folder.

    Returns:
        The files; empty if `path` is not a checkpoint, or is an archive.

    Raises:
        InputError: If the folder contains several checkpoints.
    """
    index = _index_of(path)
    if index is None:
        return ()
    data_prefix = f"{index.stem}.data-"
    siblings = sorted(index.parent.iterdir()) if index.parent.is_dir() else []
    return (index, *(file for file in siblings if file.name.startswith(data_prefix)))


def is_checkpoint(path: Path) -> bool:
    """Return whether `path` is a checkpoint as for `checkpoint_files`, or an archive."""
    return _is_archive(path) or _index_of(path) is not None


def read_tensorbundle(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint.

    Args:
        path: The prefix (model.ckpt), the .index, a .data file, a folder with one checkpoint, or a
            .tar.gz with one, which is not unpacked.

    Returns:
        The tensors by name, with their types and shapes.

    Raises:
        InputError: If protobuf is not installed, or the checkpoint is cut off, damaged, compressed
            or object-based (TensorFlow 2).
    """
    files = _open(path)
    classes, error_class = message_classes(
        SCHEMA, package="tensorflow", path=path, reason="TensorFlow files"
    )
    entries = read_table(files.index, files.path, remedy=REMEDY)
    try:
        header = classes["BundleHeaderProto"].FromString(entries.pop("", b""))
        messages = {
            name: classes["BundleEntryProto"].FromString(value) for name, value in entries.items()
        }
    except error_class as error:
        raise damaged_index(files.path) from error
    if header.num_shards < 1 or not messages:
        raise InputError(f"{files.path}: contains no tensors: {REMEDY}")
    if header.endianness:
        raise InputError(
            f"{files.path}: is in big-endian byte order: write it on a little-endian machine"
        )
    if OBJECT_GRAPH in messages:
        raise InputError(
            f"{files.path}: is an object-based TensorFlow 2 checkpoint: give a name-based one, "
            "like the checkpoints of DeepLab's authors"
        )
    shards: dict[int, Data] = {}
    tensors = {}
    for name, entry in messages.items():
        shard = entry.shard_id
        if not 0 <= shard < header.num_shards:
            raise damaged_index(files.path)
        if shard not in shards:
            shards[shard] = files.read(
                f"{files.prefix}.data-{shard:05d}-of-{header.num_shards:05d}"
            )
        tensors[name] = _tensor(entry, shards[shard], f"{files.path}: {name}")
    return tensors


def _tensor(entry: Any, data: Data, where: str) -> Tensor:
    damaged = "the checkpoint is cut off or damaged: download it again"
    if entry.slices:
        raise InputError(
            f"{where} is stored in slices: save the checkpoint with unpartitioned variables"
        )
    if entry.dtype not in DTYPES:
        raise InputError(
            f"{where} has type {entry.dtype} of types.proto, which cannot be read: must be one of "
            f"{', '.join(map(str, DTYPES))}"
        )
    dtype = np.dtype(DTYPES[entry.dtype])
    shape = tuple(dim.size for dim in entry.shape.dim)
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != entry.size:
        raise InputError(f"{where} has {entry.size} bytes for shape {shape}: {damaged}")
    if entry.offset < 0 or entry.offset + entry.size > len(data):
        raise InputError(
            f"{where} ends at byte {entry.offset + entry.size}, after the end of the data at "
            f"{len(data)}: {damaged}"
        )
    values = np.array(data[entry.offset : entry.offset + entry.size])  # a writable copy
    if masked_crc32c(values) != entry.crc32c:
        raise InputError(f"{where} does not match its checksum (CRC-32C): {damaged}")
    return torch.from_numpy(values.view(dtype).reshape(shape))


# --- Finding the files


def _index_of(path: Path) -> Path | None:
    """The index of the checkpoint that a path refers to; None if it is not a checkpoint."""
    if path.is_dir():
        found = sorted(file for file in path.glob(f"*{INDEX}") if not file.name.startswith("."))
        if len(found) > 1:
            raise InputError(
                f"{path}: contains {len(found)} checkpoints: give one of "
                f"{', '.join(file.name for file in found[:4])}"
            )
        return found[0] if found else None
    if path.suffix == INDEX:
        return path
    if DATA.search(path.name):
        return path.with_name(DATA.sub(INDEX, path.name))
    # No file has the name of a prefix; if one has, it is not part of the checkpoint.
    index = path.with_name(path.name + INDEX)
    return index if index.is_file() and not path.exists() else None


def _open(path: Path) -> _Files:
    if _is_archive(path):
        return _open_archive(path)
    index = _index_of(path)
    if index is None:
        raise InputError(f"{path}: is not a TensorFlow checkpoint: {REMEDY}")

    def read(name: str) -> Data:
        file = index.with_name(name)
        try:
            return np.memmap(file, np.uint8, mode="r") if file.stat().st_size else EMPTY
        except OSError as error:
            raise InputError(
                f"{file}: cannot be read ({error.strerror}): put it next to {index.name}, which "
                "needs it"
            ) from error

    try:
        return _Files(index, index.stem, index.read_bytes(), read)
    except OSError as error:
        raise InputError(f"{index}: cannot be read ({error.strerror}): check the path") from error


def _is_archive(path: Path) -> bool:
    return path.name.endswith(ARCHIVES) and not path.is_dir()


def _open_archive(path: Path) -> _Files:
    """Open the checkpoint in a .tar.gz.

    Nothing is unpacked, so the names of the members cannot point outside of a folder.
    """
    with _reading(path), tarfile.open(path) as archive:
        files = {member.name: member for member in archive if member.isfile()}
        # macOS adds "._NAME" next to NAME.
        found = [name for name in files if name.endswith(INDEX) and "/._" not in f"/{name}"]
        if len(found) != 1:
            raise InputError(
                f"{path}: contains {len(found) or 'no'} checkpoints: give an archive with one, or "
                "unpack it and give the .index"
            )
        (index,) = found
        folder, _, name = index.rpartition("/")
        content = _member(path, archive, files[index]).tobytes()

    def read(name: str) -> Data:
        member = f"{folder}/{name}" if folder else name
        if member not in files:
            raise InputError(f"{path}: lacks {member}, which {index} needs: download it again")
        with _reading(path), tarfile.open(path) as archive:
            return _member(path, archive, files[member])

    return _Files(path, name.removesuffix(INDEX), content, read)


def _member(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Data:
    if member.size > MAX_BYTES:
        raise InputError(
            f"{path}: {member.name} in it has {member.size} bytes, more than {MAX_BYTES}: unpack "
            "the archive and give the .index"
        )
    file = archive.extractfile(member)
    content = file.read() if file is not None else b""
    if len(content) != member.size:
        raise EOFError
    return np.frombuffer(content, np.uint8)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn errors of reading an archive into InputErrors."""
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path}: is not an archive, or is cut off or damaged: download it again"
        ) from (error)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check the path") from error
