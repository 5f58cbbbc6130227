"""The convenience endpoint: a photo in, views of the predicted mesh and the mesh out. docs/serving.md describes it."""

from __future__ import annotations

import asyncio
import base64
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dibr_deploy.errors import DibrError, one_line
from dibr_deploy.runtime.images import decode_pixels, png
from dibr_deploy.runtime.mesh_file import glb
from dibr_deploy.runtime.render import turntable

from .app import model_of, service_of, unless_gone
from .batching import Arrays
from .errors import Reason, RequestError
from .http_body import read_body
from .repository import Model
from .service import Service
from .tensors import invalid, quoted

FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG"}
FORM = "multipart/form-data"
_PNG, _GLB = "image/png", "model/gltf-binary"
_MOST_FIELDS = 16
_LONGEST_FIELD = 1024

Number = Annotated[float, Field(allow_inf_nan=False)]


class Options(BaseModel):
    """What may be asked for, in the query string or in fields of a form."""

    model_config = ConfigDict(extra="forbid")

    views: Annotated[int, Field(ge=1, le=36)] = 1
    """Around the vertical axis, evenly."""
    azimuth: Annotated[Number, Field(ge=-3600, le=3600)] = 0.0
    """Of the first view, degrees."""
    elevation: Annotated[Number, Field(ge=-90, le=90)] = 20.0
    """Degrees."""
    fov: Annotated[Number, Field(ge=5, le=120)] = 40.0
    """Full vertical opening angle, degrees; the camera stands so far that it sees the whole mesh."""
    light: Annotated[str, Field(max_length=256)] = ""
    """Numbers with commas between them, instead of the predicted light; as many as the model's output has."""
    mesh: bool = True
    """Whether the JSON has the mesh."""


class _Asked(NamedTuple):
    image: bytes
    format: str
    options: Options


def routes() -> list[Route]:
    paths = ("/v2/models/{name}/render", "/v2/models/{name}/versions/{version}/render")
    return [Route(path, _render, methods=["POST"]) for path in paths]


async def _render(request: Request) -> Response:
    service = service_of(request)
    with service.accepted(*model_of(request), "http") as model:
        if model.predictor is None:
            raise invalid("the model is no image-to-mesh model, so there is nothing to render")
        asked = await _parse(request, await read_body(request, service.settings))
        media = _wanted(request.headers.get("accept", ""))
        return await unless_gone(request, _answer(service, model, asked, media))


async def _parse(request: Request, body: bytes) -> _Asked:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    fields: dict[str, str] = dict(request.query_params)
    if media == FORM:
        image, media, own = await _form(request, body)
        fields |= own
    else:
        image = body
    if media not in FORMATS:
        raise RequestError(
            Reason.UNSUPPORTED_MEDIA, f"the image must be {' or '.join(FORMATS)}, alone or as part image of a {FORM}"
        )
    try:
        return _Asked(image, FORMATS[media], Options.model_validate(fields))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise invalid(f"parameter {quoted(str(problem['loc'][0]))}: {problem['msg']}") from None


class _InMemory(MultiPartParser):
    spool_max_size = 1 << 40  # nothing that is sent goes to a disk


async def _form(request: Request, body: bytes) -> tuple[bytes, str, dict[str, str]]:
    """Part ``image``, its media type, and the other fields."""

    async def once() -> AsyncIterator[bytes]:
        yield body

    try:
        parser = _InMemory(request.headers, once(), max_files=1, max_fields=_MOST_FIELDS, max_part_size=_LONGEST_FIELD)  # type: ignore[arg-type]
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError, UnicodeError) as error:
        raise invalid(f"the form cannot be read: {one_line(error)}") from None
    image = form.get("image")
    if not isinstance(image, UploadFile):
        raise invalid("the form has no file in its part image")
    fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    return await image.read(), (image.content_type or "").lower(), fields


def _wanted(accept: str) -> str:
    """The first of our media types that the client names; JSON where it names none."""
    for part in accept.split(","):
        media = part.partition(";")[0].strip().lower()
        if media in (_PNG, _GLB, "application/json"):
            return media
    return "application/json"


async def _answer(service: Service, model: Model, asked: _Asked, media: str) -> Response:
    options, predictor = asked.options, model.predictor
    assert predictor is not None
    deadline = service.deadline(None)
    photo = await _decoded(service, model, asked, deadline)
    prediction = await service.run(model, predictor.feed(photo, np.eye(4)), deadline)
    if options.light and model.renderer is None:
        raise invalid("this model's bundle has no renderer of its own, so its light cannot be changed")
    light = _light(options.light, prediction["light"])
    if media == _GLB:
        return Response(await asyncio.to_thread(_mesh, prediction), media_type=_GLB)
    azimuth, elevation, fov = (math.radians(angle) for angle in (options.azimuth, options.elevation, options.fov))
    views = 1 if media == _PNG else options.views
    cameras = turntable(prediction["vertices"][0], predictor.image_size, views, azimuth, elevation, fov)
    images = await _images(service, model, photo, {**prediction, "light": light}, cameras, deadline)
    if media == _PNG:
        return Response(await asyncio.to_thread(png, images[0]), media_type=_PNG)
    return JSONResponse(await asyncio.to_thread(_described, model, options, prediction, light, images))


async def _decoded(service: Service, model: Model, asked: _Asked, deadline: float) -> np.ndarray:
    """A thread cannot be cancelled: its place is taken until it ends, also where nobody waits for it any more."""
    await service.before(deadline, service.decoding.acquire())
    decoding = asyncio.ensure_future(asyncio.to_thread(_photo, model, asked, service.settings.max_pixels))
    decoding.add_done_callback(lambda _: service.decoding.release())
    return await asyncio.shield(decoding)


def _photo(model: Model, asked: _Asked, max_pixels: int) -> np.ndarray:
    assert model.predictor is not None
    try:
        pixels = decode_pixels(asked.image, (asked.format,), max_pixels)
    except DibrError as error:
        raise invalid(one_line(error)) from None
    return model.predictor.photo(pixels)


def _light(text: str, predicted: np.ndarray) -> np.ndarray:
    """[1, L]."""
    if not text:
        return predicted
    try:
        numbers = np.array([float(part) for part in text.split(",")], np.float32)
    except ValueError:
        numbers = np.array([np.nan])
    if numbers.shape != predicted.shape[1:] or not np.isfinite(numbers).all():
        raise invalid(f"parameter light must be {predicted.shape[1]} numbers with commas between them")
    return numbers[None]


async def _images(
    service: Service, model: Model, photo: np.ndarray, prediction: Arrays, cameras: np.ndarray, deadline: float
) -> Sequence[np.ndarray]:
    """A picture [H, W, 3] per camera [4, 4]."""
    assert model.predictor is not None
    if model.renderer is None:
        feeds = [model.predictor.feed(photo, camera) for camera in cameras]
        return [(await service.run(model, feed, deadline))["image"][0] for feed in feeds]
    pictures: list[np.ndarray] = []
    for start in range(0, len(cameras), model.renderer.max_batch):
        some = cameras[start : start + model.renderer.max_batch]
        outputs = await service.run_in(model.renderer, _view_feed(model, prediction, some), deadline)
        pictures += list(outputs["image"])
    return pictures


def _view_feed(model: Model, prediction: Arrays, cameras: np.ndarray) -> Mapping[str, np.ndarray]:
    assert model.renderer is not None
    names = [info.name for info in model.renderer.session.inputs]
    feed: dict[str, np.ndarray] = {name: prediction[name].repeat(len(cameras), 0) for name in names[:-1]}
    return {**feed, names[-1]: cameras}


def _mesh(prediction: Arrays) -> bytes:
    names = ("vertices", "faces", "uvs", "uv_faces", "texture")
    vertices, faces, uvs, uv_faces, texture = (prediction[name] for name in names)
    return glb(vertices[0], faces, uvs, uv_faces, texture[0])


def _described(
    model: Model, options: Options, prediction: Arrays, light: np.ndarray, images: Sequence[np.ndarray]
) -> dict[str, Any]:
    step = 360 / len(images)
    answer: dict[str, Any] = {
        "model_name": model.name,
        "model_version": model.version,
        "light": light[0].tolist(),
        "light_can_change": model.renderer is not None,
        "views": [
            {
                "azimuth": options.azimuth + number * step,
                "elevation": options.elevation,
                "image": base64.b64encode(png(image)).decode(),
            }
            for number, image in enumerate(images)
        ],
    }
    if options.mesh:
        answer["mesh"] = base64.b64encode(_mesh(prediction)).decode()
    return answer
