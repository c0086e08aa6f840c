"""The functions of `import pixelwise`: they accept paths as text and show progress.

Each wraps the function of the same name in its own package, where the work is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar

from rich.console import Console

from pixelwise.errors import InputError, explain_missing_packages
from pixelwise.progress import Bar
from pixelwise.worker_start import end_import_by_child

if TYPE_CHECKING:
    from torch import nn

    from pixelwise.cluster.merge import MergeResult
    from pixelwise.crf import CRFParameters
    from pixelwise.data.classes import Classes
    from pixelwise.data.dataset import SegmentationData
    from pixelwise.data.dataset_spec import DatasetSpec
    from pixelwise.doctor import Diagnosis
    from pixelwise.evaluation import BiasTuning, CalibrationReport, Evaluation
    from pixelwise.inference import AnswerOptions, FolderResult, InferenceOptions, Predictor
    from pixelwise.inference.export_manifest import ExportManifest
    from pixelwise.recipes.schema import Recipe
    from pixelwise.study.cross_validate import CrossValidation
    from pixelwise.study.curve_results import LearningCurve
    from pixelwise.study.folds import FoldsCallback
    from pixelwise.study.label_errors.find import LabelErrors
    from pixelwise.study.select import Selection
    from pixelwise.training import Callback, Run

P = ParamSpec("P")
R = TypeVar("R")


def _explained(function: Callable[P, R]) -> Callable[P, R]:
    """Report a missing PyTorch in one line."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with explain_missing_packages():
            return function(*args, **kwargs)

    return wrapper


@_explained
def load(
    path: str | Path | Sequence[str | Path],
    *,
    runtime: str = "auto",
    device: str | None = None,
    crf: CRFParameters | str | Path | None = None,
    tile: int | str = "auto",
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    value_range: tuple[float, float] | None = None,
    image_size: tuple[int, int] | None = None,
) -> Predictor:
    """Load a trained network for prediction.

    Call the result with a path, a PIL image or a uint8 (H, W, 3) array. To pass the options as one
    object, use `Predictor.from_options`.

    Args:
        path: A bundle (.safetensors), the folder of an export, or the name of published weights
            that `get_weights` has fetched; a file of this name takes precedence. Several of these
            make an ensemble, which predicts their mean probabilities; they must have the same
            classes.
        runtime: "torch", or a runtime that the bundle was exported for, such as "openvino".
            "auto" measures the available ones on first use and takes the fastest.
        device: PyTorch device, such as "cpu" or "cuda". None takes a GPU if there is one.
        crf: Refine results with a dense CRF: the name of one of `pixelwise.crf.PARAMETER_SETS`, a
            file of `pixelwise tune-crf`, or the parameters.
        tile: Tile size in pixels for images that are too large for one pass. "auto" tiles images
            that need more than 2 GiB, "none" never tiles.
        scales: Image scales of test-time augmentation, whose predictions are averaged.
        flip: Whether to average with the prediction for the mirrored image.
        value_range: For a network of 8-bit images: the values of 16-bit and floating-point images
            that become 0 and 255. Without it such images are refused.
        image_size: Usual height and width of the images, for which "auto" measures the runtimes.
            Defaults to 360x480.

    Returns:
        The predictor.

    Raises:
        InputError: If the file is damaged or of another kind, the runtime or device is not
            available, or an option is invalid.
    """
    from pixelwise.inference import InferenceOptions, Predictor

    options = InferenceOptions(runtime, device, crf, tile, scales, flip, value_range)
    return Predictor.from_options(path, options, image_size=image_size)


@_explained
def get_weights(name: str, *, quiet: bool = False) -> Path:
    """Fetch published weights into the cache, unless they are there already.

    Afterwards `load(name)` and `pixelwise predict NAME` work. A download that was interrupted
    continues where it stopped.

    Args:
        name: A name of `list_weights`, such as "deeplab_v3_resnet50_coco_voc".
        quiet: Whether to hide the progress bar.

    Returns:
        The bundle of a network, or the published file of an ImageNet classifier, for `weights` of
        `train` and `create_model`.

    Raises:
        InputError: If the name is unknown, the file is not the published one, or the disk has too
            little space.
        DownloadError: If the network fails or PIXELWISE_OFFLINE=1 forbids it; the message says
            where to put which file instead.
    """
    from pixelwise.weights.published import fetch

    with Bar("downloading", unit="bytes", quiet=quiet) as bar:
        return fetch.get_weights(name, progress=lambda _, done, total: bar(done, total or done))


@_explained
def predict_folder(
    model: str | Path | Predictor,
    images: str | Path | Sequence[str | Path],
    out: str | Path = "predictions",
    *,
    overlay: bool = True,
    table: str | Path | None = None,
    to: str | None = None,
    min_area: float | str = 0,
    fill_holes: bool = False,
    answers: AnswerOptions | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> FolderResult:
    """Write the mask of each image, and an overlay, into a folder.

    If interrupted, the same call continues where it stopped.

    Args:
        model: A bundle, an export, or a predictor from `load`, which accepts all options.
        images: An image, a folder of images, or several of both.
        out: Output folder for NAME.png and NAME_overlay.png.
        overlay: Whether to write the overlays.
        table: File for a table of the areas of all classes: .csv, .json or .parquet.
        to: "labelme", "coco", "cvat", "label-studio" or "yolo" writes the annotations of this tool
            in place of masks and overlays, as a dataset that `train` reads; "geojson" also writes
            NAME.geojson with the outlines of the components.
        min_area: Merge smaller components into their surroundings, in all results: a number of
            pixels, or of square meters as text such as "2.5m2".
        fill_holes: Fill components of the class `background` that a single class encloses.
        answers: All options of this kind in one object, in place of the four before.
        overwrite: Whether to predict images again that an interrupted call has finished, and to
            replace files that prediction did not write.
        quiet: Whether to hide the progress bar.

    Returns:
        How many images were written or kept, one line for each that failed, the rows of the
        table, and the images that are unlike the data of a calibrated network.

    Raises:
        InputError: If no image could be predicted, names collide, a file that prediction did not
            write is in the way, `out` cannot be used, or an option or a package for it is missing.
        StoppedError: After Ctrl-C or SIGTERM.
    """
    from pixelwise import inference
    from pixelwise.inference.output_names import find_images, typical_size

    if answers is None:
        answers = inference.AnswerOptions(
            table=None if table is None else Path(table),
            to=to,
            min_area=min_area,
            fill_holes=fill_holes,
        )
    elif table is not None or to is not None or min_area or fill_holes:
        raise InputError("answers: holds table, to, min_area and fill_holes: omit those")
    if isinstance(model, str | Path):
        size = typical_size(find_images(images))
        predictor = load(model, image_size=size)
    else:
        predictor = model
    unit = "steps" if answers.annotates else "images"
    with Bar("predicting", unit=unit, quiet=quiet) as bar:
        return inference.predict_folder(
            predictor,
            images,
            out,
            overlay=overlay,
            answers=answers,
            overwrite=overwrite,
            progress=bar,
        )


@_explained
def predict_shards(
    bundle: str | Path,
    images: str | Path | Sequence[str | Path],
    out: str | Path = "predictions",
    *,
    cluster: str | None = None,
    shard: str | None = None,
    overlay: bool = True,
    answers: AnswerOptions | None = None,
    options: InferenceOptions | None = None,
    shard_size: int | None = None,
    tar: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> FolderResult:
    """Write the masks of many images, on a Ray cluster or in jobs that each predict a part.

    The results are those of `predict_folder`. If interrupted, the same call continues where it
    stopped: a manifest in `out` names the shards whose results are complete.

    Args:
        bundle: A bundle or an export.
        images: Images, folders, patterns with `*`, list files with one of these in each line, or
            tar files of WebDataset; here, or in an object store, such as "s3://bucket/folder".
        out: Output folder, or an address. Workers on other machines must see the same folder.
        cluster: Address of a Ray cluster, or "local" to start one on this machine.
        shard: A part of the images, such as "3/16", to predict in this process. `merge` combines
            the parts. Give this or `cluster`.
        overlay: Whether to write the overlays.
        answers: What to write besides. The table of a part is written by `merge`.
        options: How the network is run.
        shard_size: Images that are predicted and noted together. By default 64 to 256.
        tar: Whether to write a tar file for each shard. The results of tar files always are.
        overwrite: Whether to predict finished shards again, and to replace files that prediction
            did not write.
        quiet: Whether to hide the progress bar.

    Returns:
        As `predict_folder`.

    Raises:
        InputError: As `predict_folder`, and if the cluster cannot be reached.
        PixelwiseError: If shards could not be finished, as when an object store does not answer.
        StoppedError: After Ctrl-C or SIGTERM.
    """
    from pixelwise.cluster import job, manifest

    if (cluster is None) == (shard is None):
        raise InputError("predict_shards: give either cluster or shard")
    with Bar("predicting", quiet=quiet) as bar:
        return job.predict_shards(
            bundle,
            [images] if isinstance(images, str | Path) else images,
            out,
            cluster=cluster,
            part=None if shard is None else manifest.parse_part(shard),
            options=options,
            answers=answers,
            overlay=overlay,
            overwrite=overwrite,
            tar=tar,
            shard_size=shard_size,
            progress=bar,
        )


@_explained
def merge(
    outputs: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    table: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> MergeResult:
    """Combine the parts of a job that `predict_shards(..., shard="3/16")` predicted.

    Args:
        outputs: The folders or addresses of the parts.
        out: With several outputs: the folder or address that gets all results.
        table: File for a table of the areas of all parts: .csv, .json or .parquet.
        overwrite: Whether to replace files that prediction did not write.
        quiet: Whether to hide the progress bar.

    Returns:
        The rows, faults and flagged images of all parts, and notes about parts that ran twice.

    Raises:
        InputError: If there are no parts, or they belong to different jobs.
        PixelwiseError: With one line for each part that is missing or unfinished.
    """
    from pixelwise.cluster.merge import merge_parts

    places = [outputs] if isinstance(outputs, str | Path) else outputs
    with Bar("merging", unit="files", quiet=quiet) as bar:
        return merge_parts(places, out, table=table, overwrite=overwrite, progress=bar)


@_explained
def train(
    data: str | Path | SegmentationData,
    *,
    out: str | Path,
    recipe: str | Path | None = None,
    model: str | nn.Module | None = None,
    backbone: str | None = None,
    output_stride: int | None = None,
    weights: str | Path | None = None,
    crop: int | tuple[int, int] | Literal["auto", "image"] | None = None,
    augment: str | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    patience: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    device: str | None = None,
    images: str | None = None,
    masks: str | None = None,
    group_by: str | None = None,
    settings: Mapping[str, object] | None = None,
    overwrite: bool = False,
    callback: Callback | None = None,
    quiet: bool = False,
) -> Run:
    """Train a network on images and masks.

    Settings you leave out come from the recipe; those that are "auto" there are chosen from your
    data and your machine.

    Args:
        data: Folder of images and masks in any supported dataset layout, here or in an object store
            ("s3://bucket/folder"), or a dataset.
        out: Folder for the run: bundles, metrics and checkpoints.
        recipe: Name of a shipped recipe, or a .toml file. None takes the defaults.
        model: A name of `list_models`, or your own module that maps normalized images
            (B, channels, H, W) to logits (B, classes, h, w) at any resolution.
        backbone: Backbone of the network, such as "resnet50".
        output_stride: Image size divided by feature map size, such as 8 or 16.
        weights: Initial weights: "imagenet", "none", a name of `list_weights`, or a file of
            weights or a bundle.
        crop: Size of the training crops in pixels: a side or (height, width). "image" trains on
            whole images in batches of one.
        augment: Augmentation for a kind of images: "street", "aerial", "microscopy" or "documents".
        epochs: Number of passes over the training images.
        minutes: Time for the run, in place of `epochs`: the speed is measured, and crop and
            backbone are chosen as well if they are not given.
        patience: End the run after this number of validations in a row without an improvement that
            exceeds the paired interval. 0 trains all epochs.
        batch_size: Images per optimization step, over all devices.
        learning_rate: Learning rate of the backbone. The head uses `optimizer.head_multiplier`
            times this.
        seed: Random seed.
        device: "auto", "cpu", "cuda" or "mps".
        images: Folder or pattern of the images in `data`, such as "images/{id}_image.png". None
            reads `data.toml` in that folder, or detects it.
        masks: The same for the masks.
        group_by: Images that a draw of val keeps together: a pattern on the name such as
            "{group}_*", "folder", or "TABLE.csv:COLUMN".
        settings: Any recipe keys, such as {"loss.name": "focal"}. They override the recipe, and
            the arguments above override them.
        overwrite: Whether to replace a run that `out` holds.
        callback: Receives the events of the run.
        quiet: Whether to hide the progress bar.

    Returns:
        The finished run. `run.best` is the bundle with the best validation mIoU.

    Raises:
        InputError: If the data, the recipe, an argument or `out` cannot be used.
        TrainingError: If training diverges.
        StoppedError: After Ctrl-C or SIGTERM. `resume(out)` continues.
    """
    end_import_by_child()  # before PyTorch is imported
    from pixelwise import training
    from pixelwise.report import LivePage
    from pixelwise.training.callbacks import CallbackList
    from pixelwise.training.display import TrainingDisplay

    arguments = {
        "model.name": model if isinstance(model, str) else None,
        "model.options.backbone": backbone,
        "model.options.output_stride": output_stride,
        "model.weights": None if weights is None else str(weights),
        "augmentation.crop": (crop, crop) if isinstance(crop, int) else crop,
        "augmentation.preset": augment,
        "epochs": epochs,
        "minutes": minutes,
        "patience": patience,
        "batch_size": batch_size,
        "optimizer.learning_rate": learning_rate,
        "seed": seed,
        "device": device,
        "data.images": images,
        "data.masks": masks,
        "data.group_by": group_by,
    }
    given = {key: value for key, value in arguments.items() if value is not None}
    chosen = training.load_recipe(recipe, {**(settings or {}), **given})
    network = None if isinstance(model, str) else model
    with TrainingDisplay(quiet=quiet) as display:
        callbacks = CallbackList(callback, display, LivePage())
        return training.train(
            data, Path(out), chosen, overwrite=overwrite, callback=callbacks, model=network
        )


@_explained
def resume(
    folder: str | Path,
    *,
    data: str | Path | SegmentationData | None = None,
    model: nn.Module | None = None,
    callback: Callback | None = None,
    quiet: bool = False,
) -> Run:
    """Continue an interrupted training run from its last checkpoint.

    The results are bit-for-bit the same as without the interruption.

    Args:
        folder: The folder that was given to `train` as `out`.
        data: The dataset, if the run was started with a dataset in memory or its folder has moved.
        model: Your own module, if the run was started with one.
        callback: Receives the events of the run.
        quiet: Whether to hide the progress bar.

    Returns:
        The finished run.

    Raises:
        InputError: If the folder holds no run that can be continued, or its data has changed.
        StoppedError: After Ctrl-C or SIGTERM.
    """
    end_import_by_child()  # before PyTorch is imported
    from pixelwise import training
    from pixelwise.report import LivePage
    from pixelwise.training.callbacks import CallbackList
    from pixelwise.training.display import TrainingDisplay

    with TrainingDisplay(quiet=quiet) as display:
        callbacks = CallbackList(callback, display, LivePage())
        return training.resume(Path(folder), data=data, model=model, callback=callbacks)


@_explained
def finish(folder: str | Path) -> str:
    """Ask the run that trains in a folder to end after its current epoch.

    The process that trains scores the network, writes the bundles, and returns the run as after its
    last epoch. A callback may call this with the folder of its own run.

    Args:
        folder: The folder that was given to `train` as `out`.

    Returns:
        A line that says after which epoch the run ends.

    Raises:
        InputError: If the folder holds no run, or no process trains there.
    """
    from pixelwise.training.ending import finish as request

    return request(Path(folder))


@_explained
def evaluate(
    model: str | Path | Predictor | Sequence[str | Path],
    data: str | Path | SegmentationData,
    *,
    split: str = "val",
    details: bool = True,
    images: str | None = None,
    masks: str | None = None,
    quiet: bool = False,
) -> Evaluation:
    """Score a network on a split of a dataset.

    Args:
        model: A bundle, an export, or a predictor from `load`, which accepts all options. A bundle
            runs with PyTorch. Several bundles are scored as an ensemble and each on its own.
        data: Folder of images and masks, or an open dataset with the network's classes.
        split: "train", "val" or "test". If the folder has no val, it is divided as in training.
        details: Whether to score boundaries and calibration as well, which takes longer.
        images: Folder or pattern of the images in `data`, as in `train`. None reads the folder as
            in the training of the network, if that is possible.
        masks: The same for the masks.
        quiet: Whether to hide the progress bar.

    Returns:
        The evaluation, with `scores` (IoU, accuracy, Dice, ...), `intervals` and `details`; of
        several bundles also with `members` and `gain`.

    Raises:
        InputError: If the data has other classes than the network, lacks the split, or is damaged.
    """
    from pixelwise import evaluation
    from pixelwise.inference import Predictor

    predictor = model if isinstance(model, Predictor) else _load_to_score(model)
    data = _open_split(predictor, data, split, _spec(images, masks), quiet=quiet)
    with Bar(f"scoring {split}", quiet=quiet) as bar:
        if isinstance(model, str | Path | Predictor) or len(model) == 1:
            return evaluation.evaluate(predictor, data, split, details=details, progress=bar)
        members = {str(path): partial(_load_to_score, path) for path in model}
        return evaluation.evaluate_ensemble(
            predictor, members, data, split, details=details, progress=bar
        )


@_explained
def calibrate(
    bundle: str | Path,
    data: str | Path | SegmentationData,
    *,
    split: str = "val",
    images: str | None = None,
    masks: str | None = None,
    quiet: bool = False,
) -> CalibrationReport:
    """Make the probabilities of a network agree with how often it is right.

    Fits a temperature, and the limit by which images unlike the data are flagged, to a split that
    was not trained on. Both are stored with the bundle and its exports next to it, which stay valid
    otherwise. Labels and masks stay the same.

    Args:
        bundle: A bundle, or the folder of an export.
        data: Folder of images and masks, or an open dataset with the network's classes.
        split: "train", "val" or "test". If the folder has no val, it is divided as in training.
        images: Folder or pattern of the images in `data`, as in `evaluate`.
        masks: The same for the masks.
        quiet: Whether to hide the progress bar.

    Returns:
        What was stored, and the errors of the probabilities before and after.

    Raises:
        InputError: If the data has other classes than the network or fewer than two labeled images
            in the split, or the bundle cannot be written.
    """
    from pixelwise import evaluation

    predictor = _load_to_score(bundle)
    data = _open_split(predictor, data, split, _spec(images, masks), quiet=quiet)
    with Bar(f"predicting {split}", quiet=quiet) as bar:
        report = evaluation.calibrate(predictor, data, split, progress=bar)
    evaluation.store_calibration(Path(bundle), report.stored)
    return report


@_explained
def tune_bias(
    bundle: str | Path,
    data: str | Path | SegmentationData,
    *,
    out: str | Path,
    split: str = "val",
    images: str | None = None,
    masks: str | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> BiasTuning:
    """Raise the mean IoU of a network by predicting some classes more readily than others.

    Fits a number per class to a split that was not trained on, and writes a bundle in which the
    bias of the last layer adds it to the logits. Probabilities change, too: calibrate afterwards.

    Args:
        bundle: A bundle.
        data: Folder of images and masks, or an open dataset with the network's classes.
        out: The bundle to write. It is not written if the mean IoU of each half of the images, with
            the numbers that were fitted to the other half, does not rise.
        split: "train", "val" or "test". If the folder has no val, it is divided as in training.
        images: Folder or pattern of the images in `data`, as in `evaluate`.
        masks: The same for the masks.
        overwrite: Whether to replace `out`.
        quiet: Whether to hide the progress bar.

    Returns:
        The numbers, and the scores of the halves before and after.

    Raises:
        InputError: If the data has other classes than the network or fewer than two labeled images
            in the split, the network has no bias that adds to its logits, or `out` exists or
            cannot be written.
    """
    from pixelwise import evaluation
    from pixelwise.overwriting import check_output

    check_output(Path(out), overwrite=overwrite)
    predictor = _load_to_score(bundle)
    data = _open_split(predictor, data, split, _spec(images, masks), quiet=quiet)
    with Bar(f"predicting {split}", quiet=quiet) as bar:
        tuning = evaluation.tune_bias(predictor, data, split, progress=bar)
    if tuning.helps:
        evaluation.write_tuned(Path(bundle), tuning, Path(out), split=split, overwrite=overwrite)
    return tuning


@_explained
def cross_validate(
    data: str | Path,
    *,
    out: str | Path,
    folds: int = 5,
    group_by: str | None = None,
    recipe: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
    callback: FoldsCallback | None = None,
) -> CrossValidation:
    """Score every image with a network that has not seen it, nor any image of its group.

    If interrupted, the same call continues where it stopped, with the same result.

    Args:
        data: Folder of images and masks. Its train and val images are divided anew.
        out: Folder for the runs of the folds.
        folds: The number of folds.
        group_by: Images that stay in one fold, as in `train`.
        recipe: A .toml file or the name of a shipped recipe.
        settings: Values of recipe keys, such as `{"epochs": 20}`.
        callback: Receives the progress.

    Returns:
        The scores of each fold and of all images, with intervals over groups.

    Raises:
        InputError: If the data, the recipe, an argument or `out` cannot be used.
        StoppedError: After Ctrl-C or SIGTERM.
    """
    end_import_by_child()  # before PyTorch is imported
    from pixelwise.study import cross_validate as module

    chosen = _fold_recipe(recipe, settings, group_by)
    return module.cross_validate(Path(data), Path(out), chosen, folds=folds, callback=callback)


@_explained
def label_errors(
    data: str | Path,
    *,
    out: str | Path,
    folds: int = 4,
    run: str | Path | None = None,
    group_by: str | None = None,
    count: int = 200,
    suggest: str | Path | None = None,
    recipe: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
    overwrite: bool = False,
    callback: FoldsCallback | None = None,
) -> LabelErrors:
    """Find labels that are likely wrong: regions that a network contradicts which never saw them.

    Writes a page and a JSON file into `out`. If interrupted, the same call continues.

    Args:
        data: Folder of images and masks.
        out: Folder for the runs of the folds and the results.
        folds: The number of folds, as in `cross_validate`, whose folder can be used again.
        run: A run or a bundle whose val images are examined in place of folds.
        group_by: Images that stay in one fold, as in `train`.
        count: The number of findings on the page, and in the suggestions.
        suggest: New folder for the images of these findings with corrected masks.
        recipe: A .toml file or the name of a shipped recipe.
        settings: Values of recipe keys, such as `{"epochs": 20}`.
        overwrite: Whether to replace a page or a JSON file that this did not write.
        callback: Receives the progress.

    Returns:
        The findings, the most suspicious first, and an estimate of how many labels are wrong.

    Raises:
        InputError: If the data, the recipe, an argument or a folder cannot be used.
        StoppedError: After Ctrl-C or SIGTERM.
    """
    end_import_by_child()  # before PyTorch is imported
    from pixelwise.study.label_errors.find import find_label_errors

    return find_label_errors(
        Path(data),
        Path(out),
        _fold_recipe(recipe, settings, group_by),
        folds=folds,
        run=None if run is None else Path(run),
        count=count,
        suggest=None if suggest is None else Path(suggest),
        overwrite=overwrite,
        callback=callback,
    )


def _fold_recipe(
    recipe: str | Path | None, settings: Mapping[str, object] | None, group_by: str | None
) -> Recipe:
    from pixelwise.recipes.load_recipe import load_recipe

    grouped = {} if group_by is None else {"data.group_by": group_by}
    return load_recipe(recipe, {**(settings or {}), **grouped})


@_explained
def export(
    bundle: str | Path,
    *,
    to: str = "openvino",
    out: str | Path | None = None,
    size: tuple[int, int] | None = None,
    int8: bool = False,
    data: str | Path | SegmentationData | None = None,
    max_drop: float = 0.3,
    calibration: int = 100,
    overwrite: bool = False,
    quiet: bool = False,
) -> ExportManifest:
    """Export a bundle to a faster runtime, and check that it predicts the same.

    Args:
        bundle: A bundle (.safetensors).
        to: "openvino", "onnx", "tflite" or "torch-export".
        out: Folder to write. By default next to the bundle, where `load(bundle)` finds it.
        size: For TFLite: height and width of all images. By default the crop of the training. The
            other formats take images of any size.
        int8: Whether to quantize to 8-bit integers. Needs `data`.
        data: Images and masks for int8: the train split calibrates it, the val split scores it.
        max_drop: Points of validation mIoU that int8 may lose, 0 to 100.
        calibration: Number of training images that calibrate int8.
        overwrite: Whether to replace an earlier export that is damaged or was changed.
        quiet: Whether to hide the progress.

    Returns:
        The manifest of the export. Its `checks` hold what was measured.

    Raises:
        InputError: If an argument cannot be used or a package is missing.
        PixelwiseError: If the result differs from the bundle. Nothing is written then.
    """
    from pixelwise import exporters

    console = Console(stderr=True, quiet=quiet)
    with console.status("exporting") as status:
        return exporters.export(
            bundle,
            to=to,
            out=out,
            size=size,
            int8=int8,
            data=data,
            max_drop=max_drop,
            calibration=calibration,
            overwrite=overwrite,
            progress=status.update,
            note=lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True),
        )


@_explained
def learning_curve(
    data: str | Path | SegmentationData,
    *,
    out: str | Path = "learning-curve",
    fractions: Sequence[float] = (0.125, 0.25, 0.5, 1.0),
    seeds: int = 3,
    minutes: float | None = 60.0,
    steps: int | None = None,
    recipe: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
    quiet: bool = False,
) -> LearningCurve:
    """Find out whether more images would help: train on parts of them and extrapolate.

    If interrupted, the same call continues, also with more fractions, seeds or minutes.

    Args:
        data: Folder of images and masks, or an open dataset.
        out: Folder for the study.
        fractions: Fractions of the training images, for nested subsets that contain every class.
        seeds: Trainings for each fraction.
        minutes: Time budget of this call. None: no limit.
        steps: Steps of each training. None: as many as fit into the budget.
        recipe: Name of a shipped recipe, or a .toml file.
        settings: Any recipe keys, such as {"batch_size": 8}.
        quiet: Whether to hide the progress bar.

    Returns:
        The scores and the curves. `summary` says what twice the images would bring.

    Raises:
        InputError: If the data, the recipe, an argument or `out` cannot be used.
        StoppedError: After Ctrl-C or SIGTERM.
    """
    from pixelwise.recipes.load_recipe import load_recipe
    from pixelwise.study import learning_curve as study
    from pixelwise.study.study_display import StudyDisplay

    with StudyDisplay(quiet=quiet) as display:
        return study.learning_curve(
            Path(data) if isinstance(data, str) else data,
            Path(out),
            load_recipe(recipe, {**(settings or {})}),
            fractions=fractions,
            seeds=seeds,
            minutes=minutes,
            steps=steps,
            callback=display,
        )


@_explained
def select(
    pool: str | Path | Sequence[str | Path],
    bundle: str | Path,
    *,
    count: int = 50,
    labeled: str | Path | Sequence[Path] | None = None,
    out: str | Path = "selection",
    files: Literal["copy", "link"] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> Selection:
    """Choose which images of a pool to label next.

    Images are chosen that the network is in doubt about, rare and thin classes as much as others,
    and that differ from what is labeled and from each other. If interrupted, the same call
    continues.

    Args:
        pool: A folder of images, an image, or several of both.
        bundle: A network that was trained on what is labeled so far, best calibrated.
        count: Number of images to choose.
        labeled: The folder of images and masks that there are, or a list of images.
        out: Folder for the list and the page.
        files: Whether to "copy" or "link" the images into OUT/images.
        overwrite: Whether to replace files that this function did not write.
        quiet: Whether to hide the progress bar.

    Returns:
        The images with the reasons, the most useful first.

    Raises:
        InputError: If the pool has too few images, or an argument cannot be used.
        StoppedError: After Ctrl-C or SIGTERM.
    """
    from pixelwise.study import select as selection

    predictor = load(bundle, runtime="torch")
    with Bar("measuring the pool", quiet=quiet) as bar:
        return selection.select(
            pool,
            predictor,
            Path(out),
            count=count,
            labeled=labeled,
            files=files,
            overwrite=overwrite,
            progress=bar,
        )


def open_dataset(
    root: str | Path,
    *,
    splits: Sequence[str] | None = None,
    classes: Classes | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    images: str | None = None,
    masks: str | None = None,
    group_by: str = "",
    quiet: bool = False,
) -> SegmentationData:
    """Open a folder of images and masks in any supported layout, and check every file.

    Args:
        root: The folder.
        splits: Splits to check and keep. None keeps all.
        classes: Class table to use instead of the folder's own.
        val_fraction: Fraction of the images that becomes val if the folder has none.
        seed: Random seed of that division.
        images: Folder or pattern of the images in `root`, such as "images/{id}_image.png". None
            reads `data.toml` in that folder, or detects it.
        masks: The same for the masks.
        group_by: Images that the draw keeps together, as in `train`.
        quiet: Whether to hide the progress bar.

    Returns:
        The samples of each split, the classes, and notes about assumptions.

    Raises:
        InputError: With one line for each fault of the folder.
    """
    from pixelwise.data import dataset

    with Bar("checking the data", quiet=quiet) as bar:
        return dataset.open_dataset(
            Path(root),
            splits=None if splits is None else tuple(splits),
            classes=classes,
            val_fraction=val_fraction,
            seed=seed,
            progress=bar,
            spec=_spec(images, masks),
            group_by=group_by,
        )


def examine(
    root: str | Path,
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    workers: int | None = None,
    images: str | None = None,
    masks: str | None = None,
    group_by: str = "",
    quiet: bool = False,
) -> Diagnosis:
    """Check a folder of images and masks and report each problem with its remedy.

    Args:
        root: The folder, or its address in an object store such as s3://bucket/folder.
        val_fraction: Fraction of the images that becomes val if the folder has none.
        seed: Random seed of that division, as in training.
        workers: Number of threads. None takes one per core.
        images: Folder or pattern of the images in `root`, as in `open_dataset`.
        masks: The same for the masks.
        group_by: Images that the draw keeps together, as in `train`.
        quiet: Whether to hide the progress bar.

    Returns:
        The findings with their remedies, facts about the data, and suggested settings.

    Raises:
        InputError: If there is no such folder, or no known layout fits it.
    """
    from pixelwise import doctor

    with Bar("checking the data", quiet=quiet) as bar:
        return doctor.examine(
            root,
            val_fraction=val_fraction,
            seed=seed,
            workers=workers,
            progress=bar,
            spec=_spec(images, masks),
            group_by=group_by,
        )


def _load_to_score(path: str | Path | Sequence[str | Path]) -> Predictor:
    """Load a network in the precision of its file: a bundle runs with PyTorch."""
    from pixelwise.inference.export_manifest import scoring_runtime

    return load(path, runtime=scoring_runtime([path] if isinstance(path, str | Path) else path))


def _open_split(
    predictor: Predictor,
    data: str | Path | SegmentationData,
    split: str,
    spec: DatasetSpec | None,
    *,
    quiet: bool,
) -> SegmentationData:
    """Return a dataset with a split and the classes of the network; raise InputError otherwise."""
    from pixelwise.evaluation.open_splits import open_splits

    if isinstance(data, str | Path):
        with Bar("checking the data", quiet=quiet) as bar:
            return open_splits(predictor, Path(data), split, progress=bar, spec=spec)
    if split not in data.splits:
        raise InputError(f"{data.root}: has no split {split!r}: it has {', '.join(data.splits)}")
    if data.classes.names != predictor.classes.names:
        raise InputError(
            f"{data.root}: its classes are {', '.join(data.classes.names)}, the network's are "
            f"{', '.join(predictor.classes.names)}: evaluate on data with the network's classes"
        )
    return data


def _spec(images: str | None, masks: str | None) -> DatasetSpec | None:
    from pixelwise.data.dataset_spec import DatasetSpec

    return DatasetSpec(images or "", masks or "") if images or masks else None
