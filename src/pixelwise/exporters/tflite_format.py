"""TFLite: model.tflite, for LiteRT on phones and other small devices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from torch.export import ExportedProgram

from pixelwise.errors import PixelwiseError
from pixelwise.exporters.formats import CONVERTER_VARIABLE, ExportFormat

MODEL_FILE = "model.tflite"


class TFLiteFormat(ExportFormat):
    """Write models for one image size, with litert-torch in a process of its own."""

    has_fixed_size = True

    def write(self, program: ExportedProgram, folder: Path) -> str:
        source = folder / "program.pt2"
        torch.export.save(program, source)
        python = os.environ.get(CONVERTER_VARIABLE) or sys.executable
        script = Path(__file__).with_name("tflite_converter.py")
        try:
            done = subprocess.run(
                [python, "-P", script, source, folder / MODEL_FILE],
                capture_output=True,
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise PixelwiseError(f"{python}: cannot be started ({error.strerror})") from error
        finally:
            source.unlink()
        if done.returncode or not (folder / MODEL_FILE).is_file():
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise PixelwiseError(f"litert-torch in {python}: cannot convert the network ({reason})")
        return MODEL_FILE


FORMAT = TFLiteFormat()
