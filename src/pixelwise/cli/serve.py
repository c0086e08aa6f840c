"""`pixelwise serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from typer import Argument, Context, Option

from pixelwise.cli import flags
from pixelwise.cli.console import command, print_line
from pixelwise.errors import InputError, MissingPackageError


@command
def serve(
    ctx: Context,
    bundles: Annotated[
        list[Path] | None,
        Argument(
            help="Bundles and exports; the first is the default model. Without any, the newest "
            "bundle below ./runs."
        ),
    ] = None,
    host: Annotated[
        str, Option(help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, Option(help="Port; 0 for any free one.")] = 8000,
    token_file: Annotated[
        Path | None,
        Option(
            help="File with a bearer token that clients must send; also PIXELWISE_TOKEN in the "
            "environment."
        ),
    ] = None,
    queue: Annotated[
        int, Option(help="Images that may wait or run; further ones get status 503.")
    ] = 128,
    max_mib: Annotated[float, Option(help="Largest request body, in MiB.")] = 32.0,
    max_pixels: Annotated[int, Option(help="Largest number of pixels of an image.")] = 50_000_000,
    timeout: Annotated[float, Option(help="Seconds until a request is given up.")] = 60.0,
    runtime: flags.Runtime = "auto",
    device: flags.Device = None,
    crf: flags.Crf = False,
    crf_set: flags.CrfSet = None,
    tile: flags.Tile = "auto",
    scales: flags.Scales = "1",
    flip: flags.Flip = False,
) -> None:
    """Serve networks over HTTP, with a page for the browser at the root.

    The log has one JSON object per line, on stderr. SIGTERM and Ctrl-C finish accepted requests.
    """
    try:
        from pixelwise.serve.models import newest_bundle
        from pixelwise.serve.options import MEBIBYTE, ServeOptions
        from pixelwise.serve.server import run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("pixelwise"):
            raise
        raise MissingPackageError(
            f"serve needs {error.name}, which is not installed: run pip install '.[serve]' in the "
            "clone of pixelwise"
        ) from error

    if not bundles:
        newest = newest_bundle()
        if newest is None:
            raise InputError(
                "runs: contains no trained network: train one with `pixelwise train DATA`, or name "
                "a bundle: `pixelwise serve BUNDLE`"
            )
        bundles = [newest]
    options = ServeOptions(
        host=host,
        port=port,
        token=_token(token_file),
        queue=queue,
        max_bytes=int(max_mib * MEBIBYTE),
        max_pixels=max_pixels,
        timeout=timeout,
    )

    def started(url: str) -> None:
        names = ", ".join(str(path) for path in bundles)
        print_line(f"serving {names} at {url} (Ctrl-C ends it)")
        if options.is_public and options.token is None:
            print_line("anyone who reaches this address can use it: set a token to prevent that")

    run(bundles, flags.parse_options(ctx, runtime), options, started=started)


def _token(path: Path | None) -> str | None:
    if path is None:
        return os.environ.get("PIXELWISE_TOKEN")
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}): write the token into it") from error
