"""`pixelwise predict`, `pixelwise evaluate` and `pixelwise models`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.padding import Padding
from rich.table import Table

from pixelwise.cli.console import Bar, command, complain, console, scores_table

if TYPE_CHECKING:
    from pixelwise.models.registry import Variant


@command
def predict(
    bundle: Annotated[Path, typer.Argument(help="A .safetensors file that train wrote.")],
    images: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.")],
    out: Annotated[Path, typer.Option(help="Folder for masks and overlays.")] = Path("masks"),
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ...; a GPU if there is one.")
    ] = None,
) -> None:
    """Write NAME.png, a palette mask, and NAME_overlay.png, with a legend, for each image."""
    written = predict_files(bundle, images, out, device=device)
    console.print(f"{written} masks and overlays written to {out}", soft_wrap=True)


def predict_files(
    bundle: Path, images: Sequence[Path], out: Path, *, device: str | None = None
) -> int:
    """Predict files into `out`; returns how many. A bad file is reported and the rest goes on.

    Raises InputError where nothing could be predicted; exits with 1 where some could not.
    """
    from pixelwise.inference.outputs import find_images, output_names
    from pixelwise.process import own_process

    paths = find_images(images)
    names = output_names(paths, out)
    own_process()
    from pixelwise.errors import InputError
    from pixelwise.files import make_folder
    from pixelwise.inference import Predictor

    predictor = Predictor.load(bundle, device=device)
    failed: list[str] = []
    written = 0
    with Bar("predicting") as bar:
        for done, (path, name) in enumerate(zip(paths, names, strict=True), start=1):
            try:
                result = predictor(path)
            except InputError as error:
                failed += error.problems
            else:
                if not written:  # a folder is made only for something to lie in it
                    make_folder(out)
                result.save(out, name)
                written += 1
            bar(done, len(paths))
    if failed:
        faults = InputError(*failed)
        if not written:
            raise faults
        complain(faults)
        console.print(f"{written} of {len(paths)} images predicted into {out}", soft_wrap=True)
        raise SystemExit(1)
    return written


@command
def evaluate(
    bundle: Annotated[Path, typer.Argument(help="A .safetensors file that train wrote.")],
    data: Annotated[Path, typer.Argument(help="Folder of images and masks.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Also as JSON; - prints only that.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ...; a GPU if there is one.")
    ] = None,
) -> None:
    """Score a bundle on a split: the four metrics of the FCN paper, and each class."""
    from pixelwise.files import atomic, check_writable
    from pixelwise.process import own_process

    if json_file not in {None, "-"}:
        check_writable(Path(str(json_file)))
    own_process()
    from pixelwise.checkpoints import Bundle
    from pixelwise.data.dataset import open_dataset
    from pixelwise.evaluation import evaluate as score
    from pixelwise.inference import Predictor
    from pixelwise.training.recipe import load_recipe_of

    predictor = Predictor.load(bundle, device=device)
    assert isinstance(predictor.bundle, Bundle)
    trained = load_recipe_of(predictor.bundle.recipe)
    with Bar("checking the data") as bar:
        found = open_dataset(
            data,
            splits=(split,),
            classes=predictor.classes,
            val_fraction=trained.data.val_fraction,
            seed=trained.seed,
            progress=bar,
        )
    with Bar(f"scoring {split}") as bar:
        result = score(predictor, found, split, progress=bar)
    scores = {
        "bundle": str(bundle),
        "data": str(data),
        "split": split,
        "images": len(found.splits[split]),
        **result.scores.to_json(predictor.classes.names),
    }
    text = json.dumps(scores, indent=1, allow_nan=False) + "\n"
    if json_file == "-":
        print(text, end="")
        return
    for note in found.notes:
        console.print(note, soft_wrap=True)
    console.print(scores_table(scores, title=f"{bundle} on {data}, {split}"))
    if json_file is not None:
        with atomic(Path(json_file)) as side:
            side.write_text(text, encoding="utf-8")
        console.print(f"written to {json_file}", soft_wrap=True)


@command
def models() -> None:
    """List the networks with their size and source."""
    import torch

    from pixelwise.models import MODELS, count_multiply_adds, count_parameters, create_model

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("model", min_width=22)  # an option a line in the narrowest terminals
    for name in ("stride", "parameters", "multiply-adds"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("mIoU % on VOC, published")
    for name, entry in MODELS.items():
        table.add_section()
        table.add_row(name, "", "", f"at {entry.size}", f"{entry.title}, {entry.paper}")
        for variant in entry.variants:
            with torch.device("meta"):
                model = create_model(name, num_classes=21, **variant.options)
                operations = count_multiply_adds(model, height=entry.size, width=entry.size)
            table.add_row(
                Padding(_describe(variant), (0, 0, 0, 2)),
                str(variant.stride),
                f"{count_parameters(model) / 1e6:.2f} M",
                f"{operations / 1e9:.2f} G",
                variant.voc or "-",
            )
    console.print(table)
    console.print(
        "Parameters and multiply-adds are for 21 classes, as in PASCAL VOC; the latter for a "
        "square image of the side named. What a row names is set by "
        "--set model.options.KEY=VALUE; backbone and output_stride are keys, too."
    )


def _describe(variant: Variant) -> str:
    """The backbone, and the options that it and the stride do not say."""
    words = [variant.backbone]
    for key, value in variant.options.items():
        if key not in {"backbone", "output_stride"}:
            words.append(f"{key}={json.dumps(value) if isinstance(value, bool) else value}")
    return " ".join(words)
