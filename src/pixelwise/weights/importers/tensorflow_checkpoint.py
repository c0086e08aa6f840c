"""Checkpoints of TensorFlow, format V2 ("tensor bundle"): PREFIX.index and PREFIX.data-*-of-*.

The index is a table as LevelDB's (tensorflow/core/lib/io/table, leveldb's table_format.md): blocks
of sorted keys, each key without what it shares with the one before, found through a block of blocks
that the last 48 bytes point to. Its values are messages of tensor_bundle.proto, which say where in
the data files the bytes of each tensor are. Blocks and tensors carry masked CRC-32C, and all are
checked.
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
# Numbers of types.proto; texts and resources have no place in a network.
NUMBERS = {
    1: "<f4",
    2: "<f8",
    3: "<i4",
    4: "u1",
    5: "<i2",
    6: "i1",
    9: "<i8",
    10: "?",
    19: "<f2",
}
MAGIC = 0xDB4775248B80FB57
FOOTER = 48  # bytes: two handles, filled up with zeros, and the magic number
TRAILER = 5  # bytes behind a block: how it is compressed, and its CRC
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
INDEX = ".index"
DATA = re.compile(r"\.data-\d{5}-of-\d{5}$")
ARCHIVES = (".tar.gz", ".tgz")
LARGEST = 2**32  # bytes read from an archive; the published ones hold half a gigabyte
REMEDY = "give the model.ckpt.index, with the .data-00000-of-00001 beside it"

Data = npt.NDArray[np.uint8]
EMPTY: Data = np.zeros(0, np.uint8)


@dataclass(frozen=True)
class _Files:
    """A checkpoint's files.

    path: what was asked for, for messages. prefix: how their names begin. index: the bytes of the
    index. read: the bytes of another file by its name.
    """

    path: Path
    prefix: str
    index: bytes
    read: Callable[[str], Data]


def checkpoint_files(path: Path) -> tuple[Path, ...]:
    """The files of a checkpoint on disk, by its prefix, its index, a file of its data, or the
    folder that it is in; none where `path` is no checkpoint.

    An archive is not looked into. Raises InputError for a folder with several checkpoints.
    """
    index = _index_of(path)
    if index is None:
        return ()
    data = f"{index.stem}.data-"
    beside = sorted(index.parent.iterdir()) if index.parent.is_dir() else []
    return (index, *(file for file in beside if file.name.startswith(data)))


def is_checkpoint(path: Path) -> bool:
    """Whether `read_tensorbundle` is the one to read this: a checkpoint as `checkpoint_files` finds
    it, or an archive."""
    return _is_archive(path) or _index_of(path) is not None


def read_tensorbundle(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by its names, in its types and shapes.

    path: the prefix (model.ckpt), the .index, a .data file, a folder with one checkpoint, or a
    .tar.gz with one. Nothing of an archive is unpacked.

    Raises InputError where protobuf is not installed, for a checkpoint that is cut off, damaged or
    compressed, and for one by objects and not by names (TensorFlow 2).
    """
    files = _open(path)
    classes, error_class = message_classes(
        SCHEMA, package="tensorflow", path=path, reason="TensorFlow's files"
    )
    entries = _entries(files)
    try:
        header = classes["BundleHeaderProto"].FromString(entries.pop("", b""))
        messages = {
            name: classes["BundleEntryProto"].FromString(value) for name, value in entries.items()
        }
    except error_class as error:
        raise _damaged(files) from error
    if header.num_shards < 1 or not messages:
        raise InputError(f"{files.path}: holds no tensors: {REMEDY}")
    if header.endianness:
        raise InputError(f"{files.path}: has its bytes in big-endian order: little is read")
    if OBJECT_GRAPH in messages:
        raise InputError(
            f"{files.path}: is a TensorFlow 2 checkpoint of objects: one by names is needed, as "
            "DeepLab's authors published"
        )
    shards: dict[int, Data] = {}
    tensors = {}
    for name, entry in messages.items():
        shard = entry.shard_id
        if not 0 <= shard < header.num_shards:
            raise _damaged(files)
        if shard not in shards:
            shards[shard] = files.read(
                f"{files.prefix}.data-{shard:05d}-of-{header.num_shards:05d}"
            )
        tensors[name] = _tensor(entry, shards[shard], f"{files.path}: {name}")
    return tensors


def _tensor(entry: Any, data: Data, where: str) -> Tensor:
    again = "the checkpoint is cut off or damaged: fetch it again"
    if entry.slices:
        raise InputError(f"{where} is stored in slices: whole tensors are read")
    if entry.dtype not in NUMBERS:
        raise InputError(f"{where} holds no numbers of a kind that is read (type {entry.dtype})")
    number = np.dtype(NUMBERS[entry.dtype])
    shape = tuple(dim.size for dim in entry.shape.dim)
    if min(shape, default=0) < 0 or math.prod(shape) * number.itemsize != entry.size:
        raise InputError(f"{where} has {entry.size} bytes for a shape of {shape}: {again}")
    if entry.offset < 0 or entry.offset + entry.size > len(data):
        raise InputError(
            f"{where} ends at byte {entry.offset + entry.size}, the data at {len(data)}: {again}"
        )
    values = np.array(data[entry.offset : entry.offset + entry.size])  # a copy, to be written to
    if masked_crc32c(values) != entry.crc32c:
        raise InputError(f"{where} differs from its checksum (CRC-32C): {again}")
    return torch.from_numpy(values.view(number).reshape(shape))


# --- The table


def _entries(files: _Files) -> dict[str, bytes]:
    """The table's values by key."""
    index = files.index
    if not index:
        raise InputError(f"{files.path}: is empty (0 bytes): fetch it again")
    if len(index) < FOOTER or int.from_bytes(index[-8:], "little") != MAGIC:
        raise InputError(
            f"{files.path}: is no index of a TensorFlow checkpoint, or is cut off (its magic "
            f"number is missing): {REMEDY}"
        )
    try:
        footer = index[-FOOTER:-8]
        offset, size, at = _handle(footer, 0)  # of a block about filters: TensorFlow has none
        if list(_block(files, offset, size)):
            raise _damaged(files)
        offset, size, at = _handle(footer, at)
        if any(footer[at:]):
            raise _damaged(files)
        entries = {}
        for _, handle in _block(files, offset, size):
            offset, size, _ = _handle(handle, 0)
            for key, value in _block(files, offset, size):
                name = key.decode(errors="backslashreplace")  # slices have keys that are no text
                if name in entries:
                    raise _damaged(files)
                entries[name] = value
    except IndexError as error:
        raise _damaged(files) from error
    return entries


def _block(files: _Files, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of one block. Raises IndexError where they do not fit into it."""
    end = offset + size
    if end + TRAILER > len(files.index) - FOOTER:
        raise _damaged(files)
    stored = int.from_bytes(files.index[end + 1 : end + TRAILER], "little")
    if masked_crc32c(files.index[offset : end + 1]) != stored:
        raise InputError(
            f"{files.path}: a block of the index differs from its checksum (CRC-32C): the file is "
            "damaged: fetch it again"
        )
    if files.index[end]:
        raise InputError(
            f"{files.path}: its index is compressed (type {files.index[end]}), which TensorFlow "
            "does not do: write the checkpoint with TensorFlow"
        )
    block = files.index[offset:end]
    restarts = int.from_bytes(block[-4:], "little")
    stop = len(block) - 4 * (restarts + 1)
    if len(block) < 4 or stop < 0:
        raise _damaged(files)
    at, key = 0, b""
    while at < stop:
        shared, at = _varint(block, at)
        unshared, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or at + unshared + length > stop:
            raise _damaged(files)
        key = key[:shared] + block[at : at + unshared]
        at += unshared
        yield key, block[at : at + length]
        at += length


def _handle(data: bytes, at: int) -> tuple[int, int, int]:
    """Offset and size of a block, and where in `data` the next thing begins."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return offset, size, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first. Raises IndexError beyond the end, and for
    more than ten bytes."""
    number = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise IndexError


def _damaged(files: _Files) -> InputError:
    return InputError(f"{files.path}: its index is damaged: fetch it again")


# --- Finding the files


def _index_of(path: Path) -> Path | None:
    """The index of the checkpoint that a path stands for; None where it stands for none."""
    if path.is_dir():
        found = sorted(file for file in path.glob(f"*{INDEX}") if not file.name.startswith("."))
        if len(found) > 1:
            raise InputError(
                f"{path}: holds {len(found)} checkpoints: give one of "
                f"{', '.join(file.name for file in found[:4])}"
            )
        return found[0] if found else None
    if path.suffix == INDEX:
        return path
    if DATA.search(path.name):
        return path.with_name(DATA.sub(INDEX, path.name))
    # A prefix is itself no file; a file that only has such a neighbor is something else.
    index = path.with_name(path.name + INDEX)
    return index if index.is_file() and not path.exists() else None


def _open(path: Path) -> _Files:
    if _is_archive(path):
        return _open_archive(path)
    index = _index_of(path)
    if index is None:
        raise InputError(f"{path}: is no checkpoint of TensorFlow: {REMEDY}")

    def read(name: str) -> Data:
        file = index.with_name(name)
        try:
            return np.memmap(file, np.uint8, mode="r") if file.stat().st_size else EMPTY
        except OSError as error:
            raise InputError(
                f"{file}: cannot be read ({error.strerror}): it belongs to {index.name}: lay it "
                "beside it"
            ) from error

    try:
        return _Files(index, index.stem, index.read_bytes(), read)
    except OSError as error:
        raise InputError(f"{index}: cannot be read ({error.strerror}): check the path") from error


def _is_archive(path: Path) -> bool:
    return path.name.endswith(ARCHIVES) and not path.is_dir()


def _open_archive(path: Path) -> _Files:
    """The checkpoint in a .tar.gz. Members are read by their place, and nothing is unpacked, so
    that their names lead nowhere."""
    with _reading(path), tarfile.open(path) as archive:
        files = {member.name: member for member in archive if member.isfile()}
        # "._NAME" beside NAME is what macOS adds
        found = [name for name in files if name.endswith(INDEX) and "/._" not in f"/{name}"]
        if len(found) != 1:
            raise InputError(
                f"{path}: holds {len(found) or 'no'} checkpoints: give an archive with one, or its "
                ".index, unpacked"
            )
        (index,) = found
        folder, _, name = index.rpartition("/")
        content = _member(path, archive, files[index]).tobytes()

    def read(name: str) -> Data:
        whole = f"{folder}/{name}" if folder else name
        if whole not in files:
            raise InputError(f"{path}: lacks {whole}, which belongs to {index}: fetch it again")
        with _reading(path), tarfile.open(path) as archive:
            return _member(path, archive, files[whole])

    return _Files(path, name.removesuffix(INDEX), content, read)


def _member(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Data:
    if member.size > LARGEST:
        raise InputError(
            f"{path}: its {member.name} has {member.size} bytes, read are {LARGEST}: unpack it"
        )
    file = archive.extractfile(member)
    content = file.read() if file is not None else b""
    if len(content) != member.size:
        raise EOFError
    return np.frombuffer(content, np.uint8)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What goes wrong in an archive, as an InputError."""
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: is no archive, or is cut off or damaged: fetch it again") from (
            error
        )
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check the path") from error
