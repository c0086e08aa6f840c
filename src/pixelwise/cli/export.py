"""`pixelwise export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pixelwise.cli.console import command, console, facts_table
from pixelwise.cli.splits import open_splits


@command
def export(
    bundle: Annotated[Path, typer.Argument(help="A .safetensors file that train wrote.")],
    to: Annotated[str, typer.Option(help="openvino, onnx or torch-export.")] = "openvino",
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantize; needs --data.", show_default=False)
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="Images and masks: train calibrates int8, val scores it."),
    ] = None,
    max_drop: Annotated[
        float, typer.Option(help="Points of val mIoU that int8 may cost.", metavar="POINTS")
    ] = 0.3,
    calibration: Annotated[
        int, typer.Option(help="Images of train to calibrate on.", metavar="N")
    ] = 100,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write; beside the bundle if not given.", show_default=False),
    ] = None,
) -> None:
    """Write a bundle for a faster runtime, checked against the bundle; predict then finds it."""
    from pixelwise.errors import InputError

    if int8 and data is None:
        raise InputError("--int8: needs --data DATA, whose train split calibrates it")
    if not int8 and data is not None:
        raise InputError(f"--data {data}: is for --int8 only: add it, or leave --data out")
    from pixelwise.export.export_bundle import check_request
    from pixelwise.export.export_bundle import export as write
    from pixelwise.export.int8 import Int8Settings

    settings = Int8Settings(max_drop, calibration) if int8 else None
    check_request(bundle, to, out=out, int8=int8)
    found = None
    if data is not None:
        from pixelwise.weights.bundle import Bundle

        found = open_splits(Bundle.load(bundle), data, "train", "val")
    with console.status("exporting") as status:
        made = write(bundle, to, out=out, int8=settings, data=found, say=status.update)
    console.print(facts_table(_facts(made.checks)))
    console.print(f"written to {made.folder}", soft_wrap=True)


def _facts(checks: dict[str, object]) -> dict[str, str]:
    """The checks as lines for a person."""
    facts: dict[str, str] = {}
    parity = checks.get("parity")
    if isinstance(parity, list):
        for one in parity:
            height, width = one["size"]
            facts[f"at {height}x{width}"] = _likeness(one)
    window = checks.get("window")
    if isinstance(window, dict):
        facts["as a window"] = _likeness(window)
    scores, speed = checks.get("val mean IoU"), checks.get("milliseconds")
    if isinstance(scores, dict):
        facts["mean IoU on val"] = f"{scores['float32']:.2f} % in float32, {scores['int8']:.2f} %"
        facts["mean IoU on val"] += f" in int8 ({checks['max drop']:g} points may be lost)"
    if isinstance(speed, dict):
        gain = speed["float32"] / speed["int8"]
        facts["an image"] = (
            f"{speed['float32']:.1f} ms in float32, {speed['int8']:.1f} ms in int8: "
            f"{gain:.1f} times as fast"
        )
    kept = checks.get("layers in float32")
    if isinstance(kept, list):
        facts["left in float32"] = ", ".join(kept) or "no layer"
    return facts


def _likeness(parity: dict[str, float]) -> str:
    return (
        f"logits differ from PyTorch's by {parity['difference']:.1e} of their range, "
        f"{100 * parity['equal']:.3f} % of the labels are equal"
    )
