"""The numbers of a dense CRF, and those that the papers used."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pixelwise.errors import InputError


@dataclass(frozen=True)
class CRFParameters:
    """Two kernels of the pairwise energy (arXiv:1412.7062, equation 3) and the iterations.

    bi_w, bi_xy, bi_rgb: weight of the bilateral kernel, its standard stds in pixels and in
        color levels 0..255.
    pos_w, pos_xy: weight of the kernel on position alone, its standard std in pixels.

    Raises InputError where a weight is negative, a standard std is not over 0, or a value is
    no finite number.
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
                good, allowed = isinstance(value, int) and value >= 0, "a whole number, 0 or more"
            elif field.name.endswith("_w"):
                good, allowed = _is_number(value) and value >= 0, "a number, 0 or more"
            else:
                good, allowed = _is_number(value) and value > 0, "a number over 0"
            if not good or isinstance(value, bool):
                problems.append(f"CRF parameter {field.name}={value!r}: has to be {allowed}")
        if problems:
            raise InputError(*problems)

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


PARAMETER_SETS: dict[str, CRFParameters] = {
    "v1-largefov": CRFParameters(4, 49, 5, 3, 3),  # arXiv:1412.7062, PASCAL VOC
    "v2-vgg16": CRFParameters(4, 65, 3, 2, 2),  # arXiv:1606.00915, PASCAL VOC
    "v2-resnet101": CRFParameters(4, 67, 3, 3, 1),  # the same
    "camvid": CRFParameters(5, 50, 3, 3, 3),
}
DEFAULT_PARAMETERS = "v2-resnet101"


def find_parameters(given: str | Path | CRFParameters) -> CRFParameters:
    """Parameters by the name of a set or from the JSON file that `pixelwise tune-crf` writes.

    Raises InputError for a name that is not known and a file that holds no parameters.
    """
    if isinstance(given, CRFParameters):
        return given
    known = PARAMETER_SETS.get(str(given))
    if known is not None:
        return known
    path = Path(given)
    if path.suffix != ".json":
        names = ", ".join(PARAMETER_SETS)
        raise InputError(
            f"CRF parameters {str(given)!r}: are not known: give {names}, or a .json file that "
            "`pixelwise tune-crf` wrote"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: is not there: check the path") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from error
    return _from_json(path, content.get("parameters") if isinstance(content, dict) else None)


def _from_json(path: Path, content: Any) -> CRFParameters:
    names = [field.name for field in fields(CRFParameters)]
    if not isinstance(content, dict) or not set(names[:-1]) <= set(content) <= set(names):
        raise InputError(
            f'{path}: holds no CRF parameters: it needs "parameters" with {", ".join(names)}'
        )
    try:
        return CRFParameters(**content)
    except InputError as error:
        raise InputError(*(f"{path}: {problem}" for problem in error.problems)) from error
