"""Reads what a client sends, within limits. Nothing here touches a path that a client names."""

from __future__ import annotations

import asyncio
import io
import logging
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from fastapi import HTTPException
from PIL import Image
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from pixelwise.data.image_files import IMAGE_SUFFIXES
from pixelwise.data.pixel_format import Pixels
from pixelwise.errors import InputError
from pixelwise.inference import Predictor
from pixelwise.serve.options import ServeOptions

log = logging.getLogger("pixelwise.serve")

MAX_IMAGES = 64
"""Largest number of images in one request."""
FORM = "multipart/form-data"


@dataclass(frozen=True)
class SentImage:
    """An image as a client sent it.

    Attributes:
        name: Its file name for messages, without folders.
        suffix: The suffix of its name if it is that of an image format, else "".
        body: The content of the file.
    """

    name: str
    suffix: str
    body: bytes

    @classmethod
    def named(cls, name: str, body: bytes) -> SentImage:
        bare = name.replace("\\", "/").rpartition("/")[2] or "image"
        suffix = Path(bare).suffix.lower()
        return cls(bare, suffix if suffix in IMAGE_SUFFIXES else "", body)


async def read_body(request: Request, options: ServeOptions) -> bytes:
    """Read the body of a request.

    Raises:
        HTTPException: 413 if it is too large, 408 if it does not arrive in time, 400 if the client
            goes away.
    """
    announced = request.headers.get("content-length", "0")
    too_large = HTTPException(413, f"the body must have at most {options.max_bytes} bytes")
    if announced.isdecimal() and int(announced) > options.max_bytes:
        raise too_large
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(options.timeout):
            async for part in request.stream():
                size += len(part)
                if size > options.max_bytes:
                    raise too_large
                parts.append(part)
    except TimeoutError as error:
        raise HTTPException(408, f"the body took over {options.timeout:g} seconds") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the client closed the connection") from error
    return b"".join(parts)


async def read_images(request: Request, options: ServeOptions) -> list[SentImage]:
    """Read the images of a request: the body itself, or the files of a form.

    Raises:
        HTTPException: As `read_body`; 400 if there is no image or the form is damaged.
    """
    body = await read_body(request, options)
    if not request.headers.get("content-type", "").lower().startswith(FORM):
        images = [SentImage.named("image", body)] if body else []
    else:
        images = await _read_form(request, body)
    if not images:
        raise HTTPException(400, "no image: send it as the body, or as a file of a form")
    if len(images) > MAX_IMAGES:
        raise HTTPException(413, f"{len(images)} images: at most {MAX_IMAGES} are allowed")
    return images


async def _read_form(request: Request, body: bytes) -> list[SentImage]:
    async def stream() -> AsyncGenerator[bytes]:
        yield body

    parser = MultiPartParser(request.headers, stream(), max_files=MAX_IMAGES, max_fields=16)
    parser.spool_max_size = len(body)  # it is in memory already: use no temporary file
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError, AssertionError) as error:
        reason = getattr(error, "message", None) or "it is not valid"
        raise HTTPException(400, f"the form cannot be read: {reason}") from error
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    try:
        return [SentImage.named(file.filename or "", await file.read()) for file in files]
    finally:
        await form.close()


def decode(image: SentImage, predictor: Predictor, options: ServeOptions) -> Pixels:
    """Decode an image to the network's pixels.

    Raises:
        HTTPException: 413 if it has too many pixels, 422 if it cannot be decoded or has another
            format than the network needs, 503 if there is no room for a temporary file.
    """
    _check_size(image.body, options)
    try:
        with tempfile.NamedTemporaryFile(prefix="pixelwise-", suffix=image.suffix) as file:
            file.write(image.body)
            file.flush()
            pixels = predictor.prepare(Path(file.name))
    except InputError as error:
        reason = str(error).replace(file.name, image.name)
        raise HTTPException(422, reason.splitlines()[0]) from error
    except OSError as error:
        log.error("no temporary file", extra={"reason": str(error)})
        headers = {"Retry-After": "5"}
        raise HTTPException(503, "the service has no room for the image", headers) from error
    check_pixels(pixels.shape[1], pixels.shape[0], options)
    return pixels


def check_pixels(width: int, height: int, options: ServeOptions) -> None:
    """Raise HTTPException 413 if an image has too many pixels."""
    if width * height > options.max_pixels:
        raise HTTPException(
            413, f"the image has {width}x{height} pixels: at most {options.max_pixels} are allowed"
        )


def _check_size(body: bytes, options: ServeOptions) -> None:
    """Check the size that the header of the file states, before anything is decoded."""
    try:
        with Image.open(io.BytesIO(body)) as header:
            width, height = header.size
    except Image.DecompressionBombError as error:
        raise HTTPException(413, f"the image is too large ({error})") from error
    except Exception:  # decoding reports why the file cannot be read
        return
    check_pixels(width, height, options)
