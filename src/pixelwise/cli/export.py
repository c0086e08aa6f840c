"""`pixelwise export`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from pixelwise.cli import flags
from pixelwise.cli.console import command, console, facts_table, print_line


@command
def export(
    bundle: flags.Bundle,
    to: Annotated[str, Option(help="Format: openvino, onnx, tflite or torch-export.")] = "openvino",
    size: Annotated[
        str | None,
        Option(
            metavar="HEIGHTxWIDTH",
            help="For tflite: size of all images. Defaults to the crop of the training.",
        ),
    ] = None,
    int8: Annotated[
        bool, Option("--int8", help="Quantize to 8 bits. Needs --data.", show_default=False)
    ] = False,
    data: Annotated[
        Path | None, Option(help="Images and masks for --int8: train calibrates it, val scores it.")
    ] = None,
    max_drop: Annotated[
        float, Option(help="Points of val mIoU that int8 may lose.", metavar="POINTS")
    ] = 0.3,
    calibration: Annotated[
        int, Option(help="Number of training images that calibrate int8.", metavar="N")
    ] = 100,
    out: Annotated[
        Path | None, Option(help="Folder to write. Defaults to one next to the bundle.")
    ] = None,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Replace an export that is damaged or was changed.")
    ] = False,
) -> None:
    """Export a bundle to a faster runtime and verify it. predict then uses the export."""
    from pixelwise.api import export as write

    manifest = write(
        bundle,
        to=to,
        out=out,
        size=None if size is None else flags.parse_size("--size", size),
        int8=int8,
        data=data,
        max_drop=max_drop,
        calibration=calibration,
        overwrite=overwrite,
    )
    console.print(facts_table(_facts(manifest.checks)))
    print_line(f"written to {manifest.folder}")


def _facts(checks: Mapping[str, Any]) -> dict[str, str]:
    """Describe the checks of an export, one line each."""
    facts: dict[str, str] = {}
    worst: dict[str, dict[str, Any]] = {}  # of each size
    for image in checks.get("parity", ()):
        label = "at {}x{}".format(*image["size"])
        if label not in worst or image["difference"] > worst[label]["difference"]:
            worst[label] = image
    facts |= {label: _describe_parity(image) for label, image in worst.items()}
    if "tile" in checks:
        facts["as a tile"] = _describe_parity(checks["tile"])
    if scores := checks.get("val mean IoU"):
        facts["mean IoU on val"] = (
            f"{scores['float32']:.2f} % in float32, {scores['int8']:.2f} % in int8 (a loss of "
            f"{checks['max drop']:g} points is allowed)"
        )
    if times := checks.get("milliseconds"):
        ratio = times["float32"] / times["int8"]
        facts["time per image here"] = (
            f"{times['float32']:.1f} ms in float32, {times['int8']:.1f} ms in int8: "
            f"{ratio:.2f} times as fast"
        )
        if ratio <= 1:
            facts["runtime"] = (
                "int8 gains nothing on this machine; --runtime auto measures where it predicts"
            )
    if "layers in float32" in checks:
        facts["kept in float32"] = ", ".join(checks["layers in float32"]) or "no layer"
    return facts


def _describe_parity(parity: dict[str, float]) -> str:
    return (
        f"logits differ from PyTorch's by {parity['difference']:.1e} of their range, "
        f"{100 * parity['equal']:.3f} % of the labels are equal"
    )
