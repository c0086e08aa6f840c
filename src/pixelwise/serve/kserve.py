"""The routes of the Open Inference Protocol (KServe v2), with JSON and binary tensors.

A model has the input `image`, UINT8 (height, width, channels), and the outputs `mask`, UINT8
(height, width) in the values of the mask files, and `probabilities` and `logits`, FP32 (classes,
height, width). With one of the latter, the answer has the parameters `temperature`, by which the
logits are divided, and `flagged` and `lowest_familiarity` of a calibrated model.
https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from fastapi import APIRouter, HTTPException, Request, Response
from numpy.typing import NDArray

import pixelwise
from pixelwise.data.pixel_format import Pixels
from pixelwise.inference import Prediction, Segmentation
from pixelwise.serve.answers import JSON
from pixelwise.serve.requests import check_pixels, read_body
from pixelwise.serve.service import ServiceOf

HEADER_LENGTH = "inference-header-content-length"
DTYPES = {"uint8": "UINT8", "uint16": "UINT16", "float32": "FP32"}
SCORES = ("probabilities", "logits")
OUTPUTS = {"mask": "UINT8", **dict.fromkeys(SCORES, "FP32")}


router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])


@router.get("")
async def server() -> dict[str, Any]:
    extensions = ["binary_tensor_data"]
    return {"name": "pixelwise", "version": pixelwise.__version__, "extensions": extensions}


@router.get("/health/live")
async def live() -> dict[str, bool]:
    return {"live": True}


@router.get("/health/ready")
async def ready() -> dict[str, bool]:
    return {"ready": True}


@router.get("/models/{name}")
async def metadata(service: ServiceOf, name: str) -> dict[str, Any]:
    model = service.model(name)
    pixels = model.predictor.pixels
    shape = [-1, -1, pixels.channels]
    return {
        "name": model.name,
        "versions": [str(model.version)],
        "platform": f"pixelwise_{model.predictor.runtime.name}",
        "inputs": [{"name": "image", "datatype": DTYPES[str(pixels.dtype)], "shape": shape}],
        "outputs": [
            {"name": "mask", "datatype": "UINT8", "shape": [-1, -1]},
            *(
                {"name": name, "datatype": "FP32", "shape": [len(model.predictor.classes), -1, -1]}
                for name in SCORES
            ),
        ],
    }


@router.get("/models/{name}/ready")
async def model_ready(service: ServiceOf, name: str) -> dict[str, Any]:
    return {"name": service.model(name).name, "ready": True}


@router.post("/models/{name}/infer", response_class=Response)
async def infer(service: ServiceOf, name: str, request: Request) -> Response:
    model = service.model(name)
    body = await read_body(request, service.options)
    content, binary = _split(body, request.headers.get(HEADER_LENGTH))
    image = _image(content, binary, DTYPES[str(model.predictor.pixels.dtype)])
    check_pixels(image.shape[1], image.shape[0], service.options)
    wanted = _wanted(content)

    def prepare() -> Pixels:
        return model.predictor.prepare(image)

    def finish(result: Segmentation) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        parameters: dict[str, Any] = {}
        if isinstance(result, Prediction):
            parameters["temperature"] = result.temperature
            if result.lowest_familiarity is not None:
                parameters["lowest_familiarity"] = result.lowest_familiarity
                parameters["flagged"] = result.flagged
        return {output: getattr(result, output) for output in wanted}, parameters

    probabilities = any(output in SCORES for output in wanted)
    arrays, parameters = await service.run(
        request, model, prepare, finish, image.nbytes, probabilities=probabilities
    )
    head: dict[str, Any] = {"model_name": model.name, "model_version": str(model.version)}
    if isinstance(content.get("id"), str):
        head["id"] = content["id"]
    if parameters:
        head["parameters"] = parameters
    return _response(head, arrays, wanted)


def _split(body: bytes, header_length: str | None) -> tuple[dict[str, Any], bytes]:
    """Split a body into its JSON part and the binary tensors after it."""
    length = len(body)
    if header_length is not None:
        if not header_length.isdecimal() or int(header_length) > len(body):
            raise HTTPException(400, f"{HEADER_LENGTH} is {header_length}: it must be the length")
        length = int(header_length)
    try:
        content = json.loads(body[:length])
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise HTTPException(400, "the body is not a JSON object")
    return content, body[length:]


def _image(content: dict[str, Any], binary: bytes, datatype: str) -> NDArray[Any]:
    """Read the tensor `image`."""
    inputs = content.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise HTTPException(400, "inputs must be a list with the tensor `image`")
    tensor = inputs[0]
    shape = tensor.get("shape")
    if (
        not isinstance(shape, list)
        or not all(type(side) is int and 0 < side < 1 << 20 for side in shape)
        or len(shape) not in (3, 4)
        or (len(shape) == 4 and shape[0] != 1)
    ):
        raise HTTPException(400, f"shape {shape}: must be [height, width, channels]")
    if tensor.get("datatype") != datatype:
        raise HTTPException(400, f"datatype {tensor.get('datatype')!r}: must be {datatype}")
    dtype = {v: k for k, v in DTYPES.items()}[datatype]
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    try:
        if size is not None:
            if size != len(binary):
                raise HTTPException(400, f"binary_data_size {size}: {len(binary)} bytes were sent")
            values = np.frombuffer(binary, np.dtype(dtype).newbyteorder("<"))
        else:
            values = _from_json(tensor.get("data"), dtype)
        return values.reshape(shape[-3:]).astype(dtype)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise HTTPException(400, f"data does not have the shape {shape} ({error})") from error


def _from_json(data: Any, dtype: str) -> NDArray[Any]:
    wide = np.asarray(data, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # such values are refused below
        values = wide.astype(dtype)
    if not (values == wide).all() and dtype != "float32":
        raise ValueError(f"a value is not a {dtype}")
    return np.asarray(values)


def _wanted(content: dict[str, Any]) -> dict[str, bool]:
    """The wanted outputs, and whether each is sent in binary form."""
    parameters = content.get("parameters")
    default = isinstance(parameters, dict) and parameters.get("binary_data_output") is True
    outputs = content.get("outputs")
    if outputs is None:
        return {"mask": default}
    if not isinstance(outputs, list) or not outputs:
        raise HTTPException(400, "outputs must be a list of tensors")
    wanted: dict[str, bool] = {}
    for output in outputs:
        name = output.get("name") if isinstance(output, dict) else None
        if name not in OUTPUTS:
            raise HTTPException(400, f"output {name!r}: allowed are {', '.join(OUTPUTS)}")
        own = output.get("parameters")
        wanted[name] = own.get("binary_data", default) is True if isinstance(own, dict) else default
    return wanted


def _response(
    head: dict[str, Any], arrays: dict[str, NDArray[Any]], wanted: dict[str, bool]
) -> Response:
    tensors: list[dict[str, Any]] = []
    binary = b""
    for output, array in arrays.items():
        tensor: dict[str, Any] = {"name": output, "datatype": OUTPUTS[output]}
        tensor["shape"] = list(array.shape)
        if wanted[output]:
            part = np.ascontiguousarray(array).tobytes()
            tensor["parameters"] = {"binary_data_size": len(part)}
            binary += part
        else:
            tensor["data"] = array.reshape(-1).tolist()
        tensors.append(tensor)
    text = json.dumps({**head, "outputs": tensors}).encode()
    if not binary:
        return Response(text, media_type=JSON)
    headers = {HEADER_LENGTH: str(len(text))}
    return Response(text + binary, media_type="application/octet-stream", headers=headers)
