"""Convert a program of torch.export to a TFLite model: `python tflite_converter.py PT2 TFLITE`.

A program of its own, because litert-torch needs other versions of some packages, and may therefore
be in another environment. It imports nothing of pixelwise.
"""

from __future__ import annotations

import sys

import litert_torch
import torch


class Named(torch.nn.Module):
    """Gives the outputs of a program their names."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        labels, logits = self.module(image)
        return {"labels": labels, "logits": logits}


def main(source: str, target: str) -> None:
    # Without operations in place, which cannot change the constants of a loaded program.
    program = torch.export.load(source).run_decompositions({})
    (image,), _ = program.example_inputs
    model = litert_torch.convert(Named(program.module()), sample_kwargs={"image": image})
    model.export(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
