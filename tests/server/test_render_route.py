"""A photo in, views and a mesh out, over HTTP."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import random
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import trimesh
import urllib3
from PIL import Image
from small_networks import EXAMPLE, coarse

from dibr_deploy.export import to_onnx
from dibr_deploy.runtime import Session
from dibr_deploy.runtime.cameras import orbit, perspective
from dibr_deploy.runtime.server import render_route
from dibr_deploy.runtime.server.errors import RequestError
from dibr_deploy.runtime.server.service import Service
from dibr_deploy.runtime.server.settings import settings_of
from server.photos import photo
from server.service import Running, running
from server.watch import Watch


@pytest.fixture(scope="module")
def service(shape: Path, bundle: Path) -> Iterator[Running]:
    plain = to_onnx(coarse(), EXAMPLE, shape.parent / "plain.onnx")
    with running([f"shape={shape}", f"sphere={bundle}", f"plain={plain}"], max_pixels=1 << 20) as service:
        yield service


def post(service: Running, query: str = "", body: bytes | None = None, model: str = "shape", **headers: str) -> Any:
    named = {"content-type": "image/png", **{name.replace("_", "-"): value for name, value in headers.items()}}
    url = f"http://{service.http}/v2/models/{model}/render{query}"
    return urllib3.request("POST", url, body=photo() if body is None else body, headers=named)


def picture(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_views_are_what_the_session_renders(service: Running, shape: Path) -> None:
    """Azimuths go around evenly; the light is that of a photo from the front, and stays where it is in all of them."""
    answer = post(service, "?views=3&azimuth=30&elevation=10").json()
    assert [view["azimuth"] for view in answer["views"]] == [30, 150, 270]
    session = Session(shape, "cpu", threads=1)
    pixels = np.asarray(Image.open(io.BytesIO(photo())))
    feed = session.preprocess(pixels)
    predicted = session.run(**feed, world_to_clip=np.eye(4, dtype=np.float32)[None])
    assert np.allclose(answer["light"], predicted["light"][0])
    from dibr_deploy.runtime.render import turntable

    cameras = turntable(predicted["vertices"][0], (24, 20), 3, *np.radians([30, 10, 40]))
    renderer, given = session.open_renderer(), {name: predicted[name] for name in ("vertices", "texture", "light")}
    for view, camera in zip(answer["views"], cameras, strict=True):
        expected = renderer.run(**given, world_to_clip=camera[None])["image"][0]
        shown = picture(base64.b64decode(view["image"]))
        assert shown.shape == (24, 20, 3)
        assert np.abs(shown / 255 - expected).max() <= 0.5 / 255 + 1e-6
        assert (expected < 0.99).mean() > 0.1  # the mesh is in the picture


def test_the_description_has_the_answer_and_the_form(service: Running) -> None:
    described = urllib3.request("GET", f"http://{service.http}/openapi.json").json()
    operation = described["paths"]["/v2/models/{name}/render"]["post"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == set(post(service).json())
    assert set(schema["required"]) == set(post(service, "?mesh=false").json())
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    fields = {name: str(field["default"]) for name, field in form["properties"].items() if name != "image"}
    assert set(fields) == {parameter["name"] for parameter in operation["parameters"]}
    content, media = urllib3.encode_multipart_formdata({**fields, "image": ("photo.png", photo(), "image/png")})
    assert post(service, body=content, content_type=media).status == 200


def test_the_mesh_is_the_predicted_one(service: Running, shape: Path) -> None:
    whole = base64.b64decode(post(service).json()["mesh"])
    alone = post(service, accept="model/gltf-binary")
    assert alone.data == whole and alone.headers["content-type"] == "model/gltf-binary"
    scene = trimesh.load(io.BytesIO(whole), file_type="glb")
    [geometry] = scene.geometry.values()
    session = Session(shape, "cpu", threads=1)
    feed = session.preprocess(np.asarray(Image.open(io.BytesIO(photo()))))
    predicted = session.run(**feed, world_to_clip=np.eye(4, dtype=np.float32)[None])
    assert len(geometry.faces) == len(predicted["faces"])
    corners = geometry.vertices[geometry.faces]
    assert np.abs(corners - predicted["vertices"][0][predicted["faces"]]).max() < 1e-6
    assert "mesh" not in post(service, "?mesh=false").json()


def test_a_bundle_that_is_replaced_before_its_first_picture(shape: Path, bundle: Path, tmp_path: Path) -> None:
    """What is served is in memory, the graph that makes pictures fit included."""
    served = tmp_path / "served.zip"
    served.write_bytes(shape.read_bytes())
    with running([f"shape={served}"]) as service:
        served.write_bytes(bundle.read_bytes())
        assert post(service).status == 200


def test_light_can_be_given(service: Running) -> None:
    dark = picture(post(service, "?light=0,0,0,0", accept="image/png").data)
    bright = picture(post(service, "?light=1,0,0,0", accept="image/png").data)
    covered = (bright != 255).any(axis=-1)
    assert covered.any() and (dark[covered] == 0).all() and bright[covered].mean() > 50
    refused = post(service, "?light=1,0,0,0", model="plain")
    assert refused.status == 400 and "has no renderer of its own" in refused.json()["error"]


def test_a_form_says_the_same_as_a_body(service: Running) -> None:
    url = f"http://{service.http}/v2/models/shape/versions/1/render"
    fields = {"image": ("x.png", photo(), "image/png"), "views": "2", "elevation": "10"}
    assert urllib3.request("POST", url, fields=fields).json() == post(service, "?views=2&elevation=10").json()


def test_a_long_form_is_written_to_no_disk(service: Running) -> None:
    """Its parts stay in memory, where the parser's own limit would move them to a file."""
    rng = np.random.default_rng(0)
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (1000, 1000, 3), np.uint8)).save(stream, "PNG")
    assert len(stream.getvalue()) > 2 << 20
    fields = {"image": ("x.png", stream.getvalue(), "image/png")}
    url = f"http://{service.http}/v2/models/shape/render?mesh=false"
    with Watch().watching() as seen:
        assert urllib3.request("POST", url, fields=fields).status == 200
    assert [event for event in seen if tempfile.gettempdir() in event] == []


def test_a_jpeg_and_a_model_without_stages(service: Running) -> None:
    assert post(service, body=photo(form="JPEG"), content_type="image/jpeg").status == 200
    plain, staged = (picture(post(service, model=name, accept="image/png").data) for name in ("plain", "shape"))
    assert np.abs(plain.astype(int) - staged).mean() < 8  # the photos were fitted by different filters


def bomb() -> bytes:
    """A PNG of 10,000 x 10,000 pixels in 12 kB."""
    import struct

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    side = 10_000
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("query", "body", "headers", "status", "sentence"),
    [
        ("", b"no image", {}, 400, "is cut off or no image"),
        ("", photo()[:-200], {}, 400, "is cut off or no image"),
        ("", photo(form="JPEG"), {}, 400, "is cut off or no image"),
        ("", photo(form="GIF"), {"content_type": "image/gif"}, 415, "must be image/png or image/jpeg"),
        ("", photo(), {"content_type": ""}, 415, "must be image/png or image/jpeg"),
        ("", bomb(), {}, 400, "10000 x 10000 pixels, more than the 1048576"),
        ("", b"--x", {"content_type": "multipart/form-data"}, 400, "the form"),
        ("", b"--x--\r\n", {"content_type": "multipart/form-data; boundary=x"}, 400, "no file in its part image"),
        ("?views=0", None, {}, 400, "parameter 'views'"),
        ("?views=37", None, {}, 400, "parameter 'views'"),
        ("?elevation=91", None, {}, 400, "parameter 'elevation'"),
        ("?azimuth=nan", None, {}, 400, "parameter 'azimuth'"),
        ("?fov=1", None, {}, 400, "parameter 'fov'"),
        ("?light=1,2", None, {}, 400, "parameter light must be 4 numbers"),
        ("?light=1,2,x,inf", None, {}, 400, "parameter light must be 4 numbers"),
        ("?path=/etc/passwd", None, {}, 400, "parameter 'path': Extra inputs"),
    ],
)
def test_what_is_refused(
    service: Running, query: str, body: bytes | None, headers: dict, status: int, sentence: str
) -> None:
    response = post(service, query, body, **headers)
    assert response.status == status and sentence in response.json()["error"]


def test_models_that_predict_no_mesh(service: Running) -> None:
    response = post(service, model="sphere")
    assert response.status == 400 and "no image-to-mesh model" in response.json()["error"]
    assert post(service, model="nothing").status == 404


@pytest.mark.long
def test_damaged_images(service: Running, record_property: Any) -> None:
    rng, counts = random.Random(7), Counter[str]()
    sound = [(photo(), "image/png"), (photo(form="JPEG"), "image/jpeg")]
    for _ in range(max(int(os.environ.get("DIBR_HOSTILE_ITERATIONS", "50000")) // 1000, 50)):
        content, media = rng.choice(sound)
        damaged = bytearray(content)
        for _ in range(rng.choice([1, 2, 8])):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        response = post(service, "?mesh=false", bytes(damaged[: rng.choice([None, None, 100])]), content_type=media)
        assert response.status in (200, 400), response.data
        counts["accepted" if response.status == 200 else "refused"] += 1
    for name, count in counts.items():
        record_property(name, count)
    assert post(service).status == 200


def test_an_image_that_is_decoded_for_a_client_that_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts among those that are decoded at a time until it is done; the next waits for no longer than its time."""
    begun, go = threading.Event(), threading.Event()

    def photo(*_: Any) -> None:
        begun.set()
        assert go.wait(60)

    async def main() -> None:
        service: Any = SimpleNamespace(decoding=asyncio.Semaphore(1), settings=settings_of(), before=Service.before)

        def decoded(seconds: float) -> Any:
            return render_route._decoded(service, None, None, time.monotonic() + seconds)  # type: ignore[arg-type]

        request = asyncio.create_task(decoded(60))
        await asyncio.to_thread(begun.wait, 60)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert service.decoding.locked()
        with pytest.raises(RequestError, match="the request's time is over"):
            await asyncio.wait_for(decoded(0.05), 10)
        go.set()
        await asyncio.wait_for(service.decoding.acquire(), 60)

    monkeypatch.setattr(render_route, "_photo", photo)
    asyncio.run(main())


def test_the_cameras_see_the_mesh() -> None:
    """What the page of the service says of azimuth: 0 looks from +z, 90 from +x."""
    for azimuth, axis in ((0, 2), (90, 0)):
        view = perspective(0.7) @ orbit(np.radians(azimuth), 0.0, 3.0)
        near = np.zeros(4)
        near[axis], near[3] = 0.5, 1.0
        far = near * [-1, -1, -1, 1]
        assert (view @ near)[3] < (view @ far)[3]
