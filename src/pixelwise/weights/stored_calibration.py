"""What `pixelwise calibrate` found out about a network, stored with its bundle and its exports.

In a bundle it is an entry of the metadata of its own, and in an export a file of its own. Neither
is part of the digest by which exports, journals and cached timings recognize the network.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pixelwise.errors import InputError
from pixelwise.file_io import atomic, read_text, write_text

KEY = "pixelwise-calibration"
FILE = "calibration.json"
"""The name of the file in an export."""
REMEDY = "calibrate it again with `pixelwise calibrate`"
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class StoredCalibration:
    """How probabilities follow from the logits of a network, and which images are unlike its data.

    Attributes:
        temperature: Divides the logits before the softmax, above 0.
        lowest_familiarity: An image whose familiarity is below this is flagged as unlike the data
            of the network.
        false_alarms: The fraction (0..1) of ordinary images that this flags, measured on images
            that did not determine the limit.
        images: The number of images that were used.
    """

    temperature: float
    lowest_familiarity: float
    false_alarms: float
    images: int

    def __post_init__(self) -> None:
        numbers = [float(value) for value in asdict(self).values()]
        if not all(map(isfinite, numbers)) or self.temperature <= 0:
            raise ValueError(f"not a calibration: {self}")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StoredCalibration:
        """Raise KeyError, TypeError or ValueError for other data."""
        floats = ("temperature", "lowest_familiarity", "false_alarms")
        return cls(**{name: float(data[name]) for name in floats}, images=int(data["images"]))


def read_calibration(path: Path) -> StoredCalibration | None:
    """Read the calibration of a bundle or of the folder of an export; None if there is none.

    Raises:
        InputError: If it is damaged.
    """
    if path.is_dir():
        path = path / FILE
        text = read_text(path) if path.is_file() else None
    else:
        try:
            with safe_open(path, framework="numpy") as file:
                text = (file.metadata() or {}).get(KEY)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: cannot be read ({error}): give a bundle") from error
    if text is None:
        return None
    try:
        return StoredCalibration.from_json(json.loads(text))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: its calibration is damaged: {REMEDY}") from error


def write_calibration(path: Path, calibration: StoredCalibration) -> None:
    """Store a calibration in a bundle or in the folder of an export, and replace an earlier one.

    Raises:
        InputError: If the file cannot be written.
    """
    text = json.dumps(calibration.to_json(), allow_nan=False)
    if path.is_dir():
        write_text(path / FILE, text + "\n")
        return
    with path.open("rb") as source, atomic(path) as temporary, temporary.open("wb") as target:
        (length,) = _LENGTH.unpack(source.read(_LENGTH.size))
        header = json.loads(source.read(length))
        header["__metadata__"][KEY] = text
        data = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        data += b" " * (-len(data) % 8)  # the tensors stay aligned
        target.write(_LENGTH.pack(len(data)) + data)
        shutil.copyfileobj(source, target, 1 << 20)
