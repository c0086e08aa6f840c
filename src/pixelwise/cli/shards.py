"""The options of predict for clusters and parts of a job, `pixelwise merge`, and their reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Context, Option

from pixelwise.cli import answers, flags
from pixelwise.cli.console import Bar, command, complain, print_line
from pixelwise.errors import InputError

if TYPE_CHECKING:
    from pixelwise.inference import AnswerOptions, FolderResult, InferenceOptions

_REFUSED = ("large", "frame_masks")
_NEEDS_SHARDS = {"shard_size": "--shard-size", "tar": "--tar"}


def check_options(ctx: Context, bundles: Sequence[Path], wanted: AnswerOptions) -> None:
    """Raise InputError for options that have no meaning in a job of shards."""
    given = ctx.params
    flag = "--cluster" if given["cluster"] is not None else "--shard"
    if given["cluster"] is not None and given["shard"] is not None:
        raise InputError("--cluster with --shard: each divides the images: give only one of them")
    if len(bundles) > 1:
        raise InputError(f"{bundles[1]}: several bundles with {flag}: give only one")
    if wanted.annotates:
        raise InputError(
            f"--to {wanted.to} with {flag}: the annotations of all images are one dataset: omit "
            "one of them"
        )
    for name in _REFUSED:
        if given[name]:
            raise InputError(
                f"--{name.replace('_', '-')} with {flag}: only whole images are predicted in "
                "shards: omit one of them"
            )


def refuse_shard_options(ctx: Context) -> None:
    """Raise InputError for options and addresses that need --cluster or --shard."""
    from pixelwise.storage.addresses import as_address

    for name, flag in _NEEDS_SHARDS.items():
        if ctx.params[name]:
            raise InputError(f"{flag}: has no effect without --cluster or --shard: add one of them")
    for path in (*ctx.params["images"], ctx.params["out"]):
        if as_address(path) is not None:
            raise InputError(
                f"{as_address(path)}: addresses need --cluster local, or --shard 1/1 to predict "
                "without Ray: add one of them"
            )


def predict(
    ctx: Context,
    bundle: Path,
    images: Sequence[Path],
    out: Path,
    *,
    options: InferenceOptions,
    answers: AnswerOptions,
) -> None:
    """Predict in shards and print a summary; exit with 1 if an image failed."""
    from pixelwise.cluster.job import predict_shards
    from pixelwise.cluster.manifest import parse_part
    from pixelwise.storage.addresses import as_address

    given = ctx.params
    part = None if given["shard"] is None else parse_part(given["shard"])
    with Bar("predicting") as bar:
        result = predict_shards(
            bundle,
            images,
            out,
            cluster=given["cluster"],
            part=part,
            options=options,
            answers=answers,
            overlay=given["overlay"],
            overwrite=given["overwrite"],
            tar=given["tar"],
            shard_size=given["shard_size"],
            progress=bar,
        )
    what = "masks and overlays" if given["overlay"] else "masks"
    total = result.written + result.kept + len(result.faults)
    where = as_address(out) or str(out)
    succeeded = report(result, where, answers, total=total, what=what)
    if part is not None:
        print_line(
            f"part {part[0]} of {part[1]} is finished: `pixelwise merge {where}` combines them"
        )
    if not succeeded:
        raise SystemExit(1)


@command
def merge(
    outputs: Annotated[
        list[Path],
        Argument(help="The folders or addresses that `pixelwise predict --shard` wrote to."),
    ],
    out: Annotated[
        Path | None, Option(help="With several: the folder or address that gets all results.")
    ] = None,
    table: answers.Table = None,
    overwrite: flags.Overwrite = False,
) -> None:
    """Combine the parts of a job that `pixelwise predict --shard` predicted.

    Says which parts are missing, unfinished or ran twice, and exits with 1 if results are missing.
    """
    from pixelwise.cluster.merge import merge_parts
    from pixelwise.storage.addresses import as_address

    with Bar("merging", unit="files") as bar:
        result = merge_parts(outputs, out, table=table, overwrite=overwrite, progress=bar)
    for note in result.notes:
        print_line(note)
    found = result.found
    if table is not None and found.rows:
        answers.show_areas(found.rows, table)
    answers.show_flagged(found.flagged, found.written)
    where = as_address(out or outputs[0]) or str(out or outputs[0])
    print_line(f"{result.shards} shards with {found.written} images are in {where}")
    if found.faults:
        complain(InputError(*found.faults))
        raise SystemExit(1)


def report(
    result: FolderResult,
    out: str,
    wanted: AnswerOptions,
    *,
    total: int,
    what: str,
    runtime: str = "",
) -> bool:
    """Print the outcome of a run that wrote `what`; return whether all images were predicted."""
    if result.outdated:
        print_line(
            f"{out}: discarded an unfinished run of another bundle, other options or an older "
            "version: started over"
        )
    if result.kept:
        print_line(f"{result.kept} of {total} images were finished by an earlier run and are kept")
    if result.replaced:
        print_line(f"{out}: replaced the masks of {result.replaced} images of an earlier run")
    if wanted.table is not None and result.rows:
        answers.show_areas(result.rows, wanted.table)
    answers.show_flagged(result.flagged, result.written + result.kept)
    if result.faults:
        complain(InputError(*result.faults))
        done = result.written + result.kept
        print_line(f"{done} of {total} images predicted into {out}")
        return False
    made_by = f" (runtime {runtime})" if runtime else ""
    # Annotations are those of all images; an earlier run has written the other results it kept.
    written = result.written + (result.kept if wanted.annotates else 0)
    print_line(f"{written} {what} written to {out}{made_by}")
    return True
