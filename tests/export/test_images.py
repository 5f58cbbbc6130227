"""Photos as bytes: the graph that makes pictures fit, and models that take uint8."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from dibr_deploy.errors import DibrError
from dibr_deploy.export import to_bundle, to_onnx, verify
from dibr_deploy.export.images import preprocessing
from dibr_deploy.runtime import Session
from dibr_deploy.runtime.bundle import Bundle

SIZE = 48


def smooth(height: int, width: int, channels: int = 3) -> np.ndarray:
    """A random picture without sharp steps, uint8."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8 + 2, width // 8 + 2, channels), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def by_pillow(pixels: np.ndarray) -> np.ndarray:
    """What the graph must do, by another implementation of the same filter: Pillow's, whose weights are rounded."""
    longer = max(pixels.shape[:2])
    height, width = (max((2 * side * SIZE + longer) // (2 * longer), 1) for side in pixels.shape[:2])
    fitted = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    square = np.full((SIZE, SIZE, 3), 255, np.uint8)
    top, left = (SIZE - height) // 2, (SIZE - width) // 2
    square[top : top + height, left : left + width] = np.asarray(fitted)
    return square


@pytest.fixture(scope="module")
def fit() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(preprocessing("photo", SIZE, SIZE).SerializeToString())


@pytest.mark.parametrize("size", [(48, 48), (96, 96), (100, 300), (301, 77), (1, 500), (900, 1), (5, 7), (1, 1)])
def test_pictures_of_any_size_fit(fit: onnxruntime.InferenceSession, size: tuple[int, int]) -> None:
    pixels = smooth(*size)
    [fitted] = fit.run(None, {"pixels": pixels})
    assert fitted.shape == (1, SIZE, SIZE, 3) and fitted.dtype == np.uint8
    assert np.abs(fitted[0].astype(int) - by_pillow(pixels)).max() <= 1


def test_a_picture_that_fits_stays_as_it_is(fit: onnxruntime.InferenceSession) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    assert (fit.run(None, {"pixels": pixels})[0][0] == pixels).all()


def test_transparent_pixels_show_white(fit: onnxruntime.InferenceSession) -> None:
    pixels = smooth(SIZE, SIZE, 4)
    alpha = pixels[..., 3:] / 255
    expected = pixels[..., :3] * alpha + 255 * (1 - alpha)
    [fitted] = fit.run(None, {"pixels": pixels})
    assert np.abs(fitted[0] - expected).max() <= 0.5 + 1e-4
    opaque = np.concatenate([pixels[..., :3], np.full_like(pixels[..., :1], 255)], axis=-1)
    assert (fit.run(None, {"pixels": opaque})[0][0] == pixels[..., :3]).all()


class Brightness(nn.Module):
    def forward(self, scale: torch.Tensor, photo: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"seen": photo * scale[:, None, None, None]}


def test_a_model_that_takes_bytes(tmp_path: Path) -> None:
    """The conversion is in the graph: bytes / 255, channels first; the bundle and its sample say the same."""
    example = (torch.rand(1), torch.rand(1, 3, 20, 30))
    path = to_bundle(Brightness(), example, tmp_path / "b.zip", photo_input="photo")
    manifest = Bundle(path).manifest
    assert manifest.preprocess == "preprocess.onnx" and "uint8" in manifest.inputs[1].meaning
    assert manifest.inputs[1].shape == ("batch", 20, 30, 3)
    session = Session(path, "cpu")
    photos = np.random.default_rng(0).integers(0, 256, (5, 20, 30, 3), np.uint8)
    scales = np.linspace(0, 1, 5, dtype=np.float32)
    seen = session.run(scales, photos)["seen"]
    expected = photos.transpose(0, 3, 1, 2) / 255 * scales[:, None, None, None]
    assert np.abs(seen - expected).max() < 1e-6
    assert verify(Brightness(), path, (torch.rand(3), torch.rand(3, 3, 20, 30)), doors=["cpu"]).passed

    feed = session.preprocess(smooth(200, 100))
    assert list(feed) == ["photo"] and feed["photo"].shape == (1, 20, 30, 3)
    session.run(scale=np.ones(1, np.float32), **feed)


def test_a_closed_session_holds_no_graph(tmp_path: Path) -> None:
    """Neither the model's nor the one for pictures."""
    before = held()
    example = (torch.rand(1), torch.rand(1, 3, 8, 8))
    session = Session(to_bundle(Brightness(), example, tmp_path / "b", photo_input="photo"), "cpu")
    session.preprocess(smooth(8, 8))
    assert held() == before + 2
    session.close()
    assert held() == before


def held() -> int:
    gc.collect()
    return sum(isinstance(held, onnxruntime.InferenceSession) for held in gc.get_objects())


@pytest.mark.parametrize(
    ("pixels", "sentence"),
    [
        (np.zeros((4, 4, 3), np.float32), r"pixels must be a uint8 array .*, got float32 \[4, 4, 3\]"),
        (np.zeros((4, 4), np.uint8), r"got uint8 \[4, 4\]"),
        (np.zeros((4, 4, 2), np.uint8), r"must have shape \[H, W, 3\] or \[H, W, 4\], got \[4, 4, 2\]"),
        (np.zeros((0, 4, 3), np.uint8), r"got \[0, 4, 3\]"),
        ([[1]], "got <class 'list'>"),
    ],
)
def test_what_is_no_picture(tmp_path: Path, pixels: object, sentence: str) -> None:
    example = (torch.rand(1), torch.rand(1, 3, 8, 8))
    session = Session(to_bundle(Brightness(), example, tmp_path / "b", photo_input="photo"), "cpu")
    with pytest.raises(DibrError, match=sentence):
        session.preprocess(pixels)  # type: ignore[arg-type]


def test_a_model_that_does_not_say_how_pictures_fit(tmp_path: Path) -> None:
    path = to_onnx(Brightness(), (torch.rand(1), torch.rand(1, 3, 8, 8)), tmp_path / "m.onnx", photo_input="photo")
    session = Session(path, "cpu")
    assert session.inputs[1].dtype == np.uint8 and not session.can_preprocess
    with pytest.raises(DibrError, match="does not say how a picture becomes its input"):
        session.preprocess(smooth(8, 8))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("picture", "photo_input must be one of the module's inputs scale, photo, got picture"),
        ("scale", r"photo_input scale must take floating-point photos \[B, 3, H, W\], got torch.float32 \[1\]"),
    ],
)
def test_inputs_that_take_no_photos(tmp_path: Path, name: str, sentence: str) -> None:
    example = (torch.rand(1), torch.rand(1, 3, 8, 8))
    with pytest.raises(DibrError, match=sentence):
        to_onnx(Brightness(), example, tmp_path / "m.onnx", photo_input=name)


def test_photos_of_no_fixed_size_have_nothing_to_fit(tmp_path: Path) -> None:
    example = (torch.rand(1), torch.rand(1, 3, 8, 8))
    shapes = {"scale": {0: "batch"}, "photo": {0: "batch", 2: "height", 3: "width"}}
    path = to_onnx(Brightness(), example, tmp_path / "m.onnx", photo_input="photo", dynamic_shapes=shapes)
    assert Session(path, "cpu").inputs[1].shape == ("batch", "height", "width", 3)
    with pytest.raises(DibrError, match="photos of photo have sizes that are not fixed"):
        to_bundle(Brightness(), example, tmp_path / "b", photo_input="photo", dynamic_shapes=shapes)
