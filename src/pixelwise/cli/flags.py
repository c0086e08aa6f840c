"""Arguments and options that several commands have in common."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Context, Option

from pixelwise.cli.console import Bar, console
from pixelwise.errors import InputError
from pixelwise.processor import missing_instructions

if TYPE_CHECKING:
    from pixelwise.data.dataset import SegmentationData
    from pixelwise.data.dataset_spec import DatasetSpec
    from pixelwise.inference import InferenceOptions, Predictor

Data = Annotated[Path, Argument(help="Folder of images and masks.")]
Images = Annotated[
    str | None,
    Option(
        metavar="FOLDER|PATTERN",
        help="Images of the dataset, such as 'images/{id}_image.png'; see the documentation of "
        "data formats. By default as in DATA/data.toml, or detected.",
        show_default=False,
    ),
]
Masks = Annotated[
    str | None, Option(metavar="FOLDER|PATTERN", help="The same for the masks.", show_default=False)
]
GroupBy = Annotated[
    str | None,
    Option(
        metavar="PATTERN|folder|CSV:COLUMN",
        help="Images that a draw of val or folds keeps together: a pattern on the name, such as "
        "'{group}_*', their folder, or a column of a table whose first column names them.",
        show_default=False,
    ),
]
DATA_OR_ADDRESS = "Folder of images and masks, here or in an object store (s3://BUCKET/FOLDER)."
Bundle = Annotated[Path, Argument(help="A .safetensors file written by train.")]
Split = Annotated[str, Option(help="train, val or test.")]
Recipe = Annotated[str | None, Option(help="A .toml file, or the name of a shipped recipe.")]
JsonFile = Annotated[
    str | None, Option("--json", metavar="FILE", help="Also write JSON; - prints only JSON.")
]
Overwrite = Annotated[
    bool, Option("--overwrite", help="Replace files that this command did not write.")
]
BundleOrExport = Annotated[Path, Argument(help="A .safetensors file from train, or an export.")]
Bundles = Annotated[
    list[Path],
    Argument(help="A .safetensors file from train, or an export. Several are an ensemble."),
]
Runtime = Annotated[
    str,
    Option(
        help="auto (the fastest available), torch, or one that the bundle was exported for: "
        "openvino, openvino-bf16, openvino-int8, onnx, onnx-int8."
    ),
]
ScoringRuntime = Annotated[
    str | None,
    Option(
        help="As for predict. By default torch for a bundle, and an export's own runtime.",
        show_default=False,
    ),
]
Device = Annotated[
    str | None, Option(help="PyTorch device: cpu, cuda, ... By default a GPU if there is one.")
]
Crf = Annotated[bool, Option("--crf", help="Refine with a dense CRF (needs numba).")]
CrfSet = Annotated[
    str | None,
    Option(
        metavar="NAME|FILE",
        help="CRF parameters: v1-largefov, v2-vgg16, v2-resnet101 or camvid, or a .json file from "
        "tune-crf. Implies --crf, which alone means v2-resnet101.",
        show_default=False,
    ),
]
Tile = Annotated[
    str,
    Option(
        metavar="auto|N|none",
        help="Largest side of the overlapping tiles that large images are cut into. auto: cut "
        "images that need more than 2 GiB in one pass. none: never cut.",
    ),
]
Scales = Annotated[
    str,
    Option(
        metavar="S,S,...",
        help="Test-time augmentation: average over these scales, e.g. 0.75,1,1.25.",
    ),
]
Flip = Annotated[
    bool, Option("--flip", help="Test-time augmentation: also average over the mirrored image.")
]
ValueRange = Annotated[
    str | None,
    Option(
        metavar="LOW,HIGH",
        help="For a network of 8-bit images: the values of 16-bit and floating-point images that "
        "become 0 and 255, e.g. 0,4095.",
        show_default=False,
    ),
]

RECIPE_KEYS = {
    "model": "model.name",
    "backbone": "model.options.backbone",
    "output_stride": "model.options.output_stride",
    "weights": "model.weights",
    "crop": "augmentation.crop",
    "augment": "augmentation.preset",
    "epochs": "epochs",
    "minutes": "minutes",
    "patience": "patience",
    "batch_size": "batch_size",
    "learning_rate": "optimizer.learning_rate",
    "seed": "seed",
    "device": "device",
    "tensorboard": "tensorboard",
    "images": "data.images",
    "masks": "data.masks",
    "cache": "data.disk_cache_mib",
    "group_by": "data.group_by",
}
"""Options that set a value of the recipe, and its key."""

LOADING = "loading the network (and timing its runtimes, the first time)"


def stated(ctx: Context) -> dict[str, str]:
    """Return the arguments and options on the command line, as the user writes them, by name."""
    return {
        str(parameter.name): parameter.opts[0] if "-" in parameter.opts[0] else "DATA"
        for parameter in ctx.command.params
        if (source := ctx.get_parameter_source(str(parameter.name)))
        and source.name == "COMMANDLINE"
    }


def parse_size(flag: str, text: str, *, others: str = "") -> tuple[int, int]:
    """Parse HEIGHTxWIDTH or a side; InputError names `others` as allowed too."""
    height, _, width = (text if "x" in text.lower() else f"{text}x{text}").lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise InputError(f"{flag} {text}: allowed are HEIGHTxWIDTH, such as 352x480{others}")
    return int(height), int(width)


def parse_options(ctx: Context, runtime: str) -> InferenceOptions:
    """Build `InferenceOptions` from a command's options; raise InputError for invalid values."""
    from pixelwise.crf import DEFAULT_PARAMETERS
    from pixelwise.inference import InferenceOptions

    if runtime.endswith("-bf16") and (missing := missing_instructions("bf16")):
        print(f"pixelwise: {missing}", file=sys.stderr)
    given = ctx.params
    scales, tile = given.get("scales", "1"), given["tile"]
    try:
        numbers = tuple(float(text) for text in scales.split(","))
    except ValueError as error:
        example = "give numbers separated by commas, e.g. 0.75,1,1.25"
        raise InputError(f"scales {scales!r}: {example}") from error
    parameters = given.get("crf_set") or (DEFAULT_PARAMETERS if given.get("crf") else None)
    side = int(tile) if tile.isascii() and tile.isdigit() else tile
    return InferenceOptions(
        runtime,
        given["device"],
        parameters,
        side,
        numbers,
        given.get("flip", False),
        _parse_range(given.get("value_range")),
    )


def _parse_range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--value-range {text}: give two numbers, such as 0,4095") from error
    return low, high


def load_predictor(
    bundle: Path | Sequence[Path],
    options: InferenceOptions,
    *,
    image_size: tuple[int, int] | None = None,
) -> Predictor:
    """Load a predictor for images of about this size, and compile the CRF if it needs one."""
    from pixelwise.process_settings import tune_allocator

    tune_allocator()
    from pixelwise.inference import Predictor

    with console.status(LOADING):
        predictor = Predictor.from_options(bundle, options, image_size=image_size)
    if predictor.crf is not None:
        compile_crf()
    return predictor


def split_bundles(first: Path, paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Divide the arguments of predict into the bundles or exports at the beginning, and images."""
    from pixelwise.inference.export_manifest import is_export

    count = 0
    while count < len(paths) and (paths[count].suffix == ".safetensors" or is_export(paths[count])):
        count += 1
    if count == len(paths):
        raise InputError(f"{paths[-1]}: is no image: give the images after the bundles")
    return [first, *paths[:count]], [*paths[count:]]


def dataset_spec(images: str | None, masks: str | None) -> DatasetSpec | None:
    """What --images and --masks state about a dataset; None if neither is given."""
    from pixelwise.data.dataset_spec import DatasetSpec

    return DatasetSpec(images or "", masks or "") if images or masks else None


def open_split(
    predictor: Predictor, data: Path, split: str, spec: DatasetSpec | None
) -> SegmentationData:
    """Open a split of a dataset, divided as in the training of the network."""
    from pixelwise.evaluation.open_splits import open_splits

    with Bar("checking the data") as bar:
        return open_splits(predictor, data, split, progress=bar, spec=spec)


def compile_crf() -> None:
    """Compile the dense CRF, which takes seconds the first time, with a status on a terminal."""
    from pixelwise.crf import compile_dense_crf

    with console.status("compiling the dense CRF (once, a few seconds)"):
        compile_dense_crf()
