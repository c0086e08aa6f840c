"""The parameters of a dense CRF, and the papers' values."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pixelwise.errors import InputError


@dataclass(frozen=True)
class CRFParameters:
    """Parameters of the two kernels of the pairwise energy (arXiv:1412.7062, equation 3).

    Args:
        bi_w: Weight of the bilateral kernel, at least 0.
        bi_xy: Spatial std of the bilateral kernel in pixels, above 0.
        bi_rgb: Color std of the bilateral kernel in levels of 0..255, above 0.
        pos_w: Weight of the position kernel, at least 0.
        pos_xy: Std of the position kernel in pixels, above 0.
        iterations: Number of mean field iterations, at least 0.

    Raises:
        InputError: If a value is out of range or not a finite number.
    """

    bi_w: float
    bi_xy: float
    bi_rgb: float
    pos_w: float
    pos_xy: float
    iterations: int = 10

    def __post_init__(self) -> None:
        problems = []
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "iterations":
                valid, allowed = isinstance(value, int) and value >= 0, "an integer of at least 0"
            elif field.name.endswith("_w"):
                valid, allowed = _is_number(value) and value >= 0, "a number of at least 0"
            else:
                valid, allowed = _is_number(value) and value > 0, "a number above 0"
            if not valid or isinstance(value, bool):
                problems.append(f"CRF parameter {field.name}={value!r}: must be {allowed}")
        if problems:
            raise InputError(*problems)

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


PARAMETER_SETS: dict[str, CRFParameters] = {
    "v1-largefov": CRFParameters(4, 49, 5, 3, 3),  # arXiv:1412.7062, PASCAL VOC
    "v2-vgg16": CRFParameters(4, 65, 3, 2, 2),  # arXiv:1606.00915, PASCAL VOC
    "v2-resnet101": CRFParameters(4, 67, 3, 3, 1),  # arXiv:1606.00915, PASCAL VOC
    "camvid": CRFParameters(5, 50, 3, 3, 3),
}
DEFAULT_PARAMETERS = "v2-resnet101"


def find_parameters(source: str | Path | CRFParameters) -> CRFParameters:
    """Return CRF parameters.

    Args:
        source: Parameters, which are returned unchanged, the name of one of `PARAMETER_SETS`, or
            a JSON file written by `pixelwise tune-crf`.

    Raises:
        InputError: If the name is unknown or the file does not contain parameters.
    """
    if isinstance(source, CRFParameters):
        return source
    known = PARAMETER_SETS.get(str(source))
    if known is not None:
        return known
    path = Path(source)
    if path.suffix != ".json":
        names = ", ".join(PARAMETER_SETS)
        raise InputError(
            f"CRF parameters {str(source)!r}: unknown: use {names}, or a .json file written by "
            "`pixelwise tune-crf`"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: does not exist: check the path") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from error
    return _from_json(path, content.get("parameters") if isinstance(content, dict) else None)


def _from_json(path: Path, content: Any) -> CRFParameters:
    names = [field.name for field in fields(CRFParameters)]
    if not isinstance(content, dict) or not set(names[:-1]) <= set(content) <= set(names):
        raise InputError(
            f'{path}: contains no CRF parameters: it needs "parameters" with {", ".join(names)}'
        )
    try:
        return CRFParameters(**content)
    except InputError as error:
        raise InputError(*(f"{path}: {problem}" for problem in error.problems)) from error
