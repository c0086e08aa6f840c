"""The routes of pixelwise's own interface, below /v1, and the page."""

from __future__ import annotations

import asyncio
import base64
import json
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse

import pixelwise
from pixelwise.data.classes import Classes
from pixelwise.data.png_encoding import encode_rgb
from pixelwise.regions.polygons import BACKGROUND
from pixelwise.serve.answers import JSON, OUTPUTS, PNG, Answer, Cleaning
from pixelwise.serve.models import HostedModel
from pixelwise.serve.requests import FORM, MAX_IMAGES, read_images
from pixelwise.serve.service import ServiceOf

PAGE = Path(__file__).parent / "page"
PAGE_FILES = {path.name: path for path in sorted(PAGE.iterdir()) if path.is_file()}

_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "required": ["image"],
        "properties": {"image": {"type": "array", "items": {"type": "string", "format": "binary"}}},
    }
}
_BODY = {
    "requestBody": {
        "required": True,
        "description": f"An image, or a form with up to {MAX_IMAGES} images.",
        "content": {"application/octet-stream": _IMAGE, "image/*": _IMAGE, FORM: _FORM},
    }
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "There is no image, or the form is damaged."},
    401: {"description": "The token is missing or wrong."},
    404: {"description": "The model does not exist."},
    408: {"description": "The body did not arrive in time."},
    413: {"description": "The body or the image is too large."},
    422: {"description": "The image cannot be read, or a parameter is not allowed."},
    503: {"description": "The queue is full. The header Retry-After says when to try again."},
    504: {"description": "There was no result in time."},
}


router = APIRouter()


@router.get("/v1/models", tags=["v1"], summary="List the models", responses={401: _ERRORS[401]})
async def models(service: ServiceOf) -> list[dict[str, Any]]:
    return [describe(model) for model in service.store.models]


@router.post(
    "/v1/segment",
    tags=["v1"],
    summary="Segment an image",
    description=(
        "With one image and one output, the response is the output itself. With several "
        "outputs it is a JSON object, with binary outputs in base64; with several images a "
        "list of these, in the order of the form, with `error` for an image that failed."
    ),
    openapi_extra=_BODY,
    response_class=Response,
    responses={
        200: {"content": {"image/png": {}, JSON: {}, "application/geo+json": {}}},
        **_ERRORS,
    },
)
async def segment(
    service: ServiceOf,
    request: Request,
    model: Annotated[str | None, Query(description="A model; the first by default.")] = None,
    output: Annotated[
        str, Query(description=f"One or more of {', '.join(OUTPUTS)}, with commas.")
    ] = "mask",
    min_area: Annotated[
        int, Query(ge=0, description="Merge areas of fewer pixels into their surroundings.")
    ] = 0,
    fill_holes: Annotated[
        bool, Query(description="Fill areas of the background that one class encloses.")
    ] = False,
    background: Annotated[str, Query(description="The class that is the background.")] = BACKGROUND,
) -> Response:
    hosted = service.model(model)
    names = _outputs(output)
    cleaning = Cleaning(min_area, fill_holes, background)
    images = await read_images(request, service.options)
    if len(images) == 1:
        answers = await service.answer(request, hosted, images[0], names, cleaning)
        if len(names) == 1:
            (answer,) = answers.values()
            return Response(answer.body, media_type=answer.media_type)
        return Response(json.dumps(_to_json(answers)), media_type=JSON)
    results = await asyncio.gather(
        *(service.answer(request, hosted, image, names, cleaning) for image in images),
        return_exceptions=True,
    )
    entries = []
    for image, result in zip(images, results, strict=True):
        if isinstance(result, HTTPException) and result.status_code == 422:
            entries.append({"name": image.name, "error": result.detail})
        elif isinstance(result, BaseException):
            raise result
        else:
            entries.append({"name": image.name, **_to_json(result)})
    return Response(json.dumps(entries), media_type=JSON)


@router.get(
    "/v1/sample",
    tags=["v1"],
    summary="A generated street scene, to try the service",
    response_class=Response,
    responses={200: {"content": {PNG: {}}}, 401: _ERRORS[401]},
)
async def sample() -> Response:
    return Response(await asyncio.to_thread(_sample), media_type=PNG)


@router.get("/metrics", include_in_schema=False)
async def metrics(service: ServiceOf) -> Response:
    return Response(service.metrics.expose(), media_type=service.metrics.media_type)


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    return FileResponse(PAGE_FILES["index.html"])


@router.get("/page/{name}", include_in_schema=False)
async def page_file(name: str) -> FileResponse:
    if name not in PAGE_FILES:
        raise HTTPException(404, "this file does not exist")
    return FileResponse(PAGE_FILES[name])


def describe(model: HostedModel) -> dict[str, Any]:
    """Describe a model for clients."""
    classes: Classes = model.predictor.classes
    colors = zip(classes.names, classes.colors, classes.written_values, strict=True)
    return {
        "name": model.name,
        "version": model.version,
        "runtime": model.predictor.runtime.name,
        "pixels": model.predictor.pixels.to_json(),
        "classes": [
            {"name": name, "color": list(color), "value": value} for name, color, value in colors
        ],
        "ignore_value": classes.file_ignore,
        "class_table": classes.to_json(),
        "pixelwise": pixelwise.__version__,
    }


@cache
def _sample() -> bytes:
    from pixelwise.data.scenes import generate_scene

    image, _ = generate_scene(0, height=360, width=480)
    return encode_rgb(image)


def _outputs(text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    unknown = [name for name in names if name not in OUTPUTS]
    if unknown:
        allowed = ", ".join(OUTPUTS)
        raise HTTPException(422, f"output {unknown[0]!r}: allowed are {allowed}")
    return names


def _to_json(answers: dict[str, Answer]) -> dict[str, Any]:
    return {
        name: json.loads(answer.body)
        if answer.media_type.endswith("json")
        else base64.b64encode(answer.body).decode()
        for name, answer in answers.items()
    }
