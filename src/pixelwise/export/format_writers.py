"""The graph in each runtime's own format: a function a format, and one line below."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch.export import ExportedProgram

from pixelwise.errors import InputError

OUTPUTS = ("labels", "logits")


def write_openvino(program: ExportedProgram, folder: Path) -> str:
    """model.xml and model.bin; weights as they are, in float32."""
    import openvino as ov

    from pixelwise.export.lowering import lower_argmax, lower_max_pools

    model = ov.convert_model(program)
    lower_max_pools(model)
    lower_argmax(model)
    model.input(0).set_names({"image"})
    channels = program.example_inputs[0][0].shape[3]
    model.reshape([1, -1, -1, channels])  # the converter forgets which sides are fixed
    for output, name in zip(model.outputs, OUTPUTS, strict=True):
        output.set_names({name})
    ov.save_model(model, folder / "model.xml", compress_to_fp16=False)
    return "model.xml"


def write_onnx(program: ExportedProgram, folder: Path) -> str:
    """model.onnx; weights of more than 2 GB would lie beside it."""
    onnx_program = torch.onnx.export(
        program, input_names=["image"], output_names=list(OUTPUTS), verbose=False
    )
    assert onnx_program is not None
    onnx_program.save(folder / "model.onnx")
    return "model.onnx"


def write_torch_export(program: ExportedProgram, folder: Path) -> str:
    """model.pt2, for `torch.export.load`, AOTInductor and ExecuTorch."""
    torch.export.save(program, folder / "model.pt2")
    return "model.pt2"


@dataclass(frozen=True)
class Writer:
    """A format: what writes it, and the packages that this needs besides PyTorch."""

    write: Callable[[ExportedProgram, Path], str]
    packages: tuple[str, ...] = ()


WRITERS = {
    "openvino": Writer(write_openvino, ("openvino",)),
    "onnx": Writer(write_onnx, ("onnx", "onnxscript", "onnxruntime")),
    "torch-export": Writer(write_torch_export),
}


def require(packages: tuple[str, ...], *, what: str) -> None:
    """Raise InputError that names the `pip install` for what is missing of `packages`."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise InputError(
            f"{what}: needs {', '.join(missing)}, not installed: `pip install {' '.join(missing)}`"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what converters say of themselves from the person (warnings, logs), and what the person
    does from their makers: OpenVINO and NNCF report their use over the network but for CI."""
    ci = os.environ.get("CI")
    os.environ["CI"] = "true"
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        if ci is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = ci
