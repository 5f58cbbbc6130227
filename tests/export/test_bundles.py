"""Bundles as the exporter writes them: the manifest says what the files hold."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from cuda_backend.host_build import ROOT
from onnxruntime_door import modules
from torch import Tensor, nn

from dibr_deploy.errors import DibrError
from dibr_deploy.export import add_engine, bundle_model, bundles, to_bundle, to_onnx
from dibr_deploy.runtime import Session, schema
from dibr_deploy.runtime.bundle import Bundle
from dibr_deploy.runtime.comparison import compare_sample
from dibr_deploy.runtime.manifest import Engine, Profile

ENGINE = Engine(
    file="tensorrt_rtx-1.7.1.engine",
    flavour="tensorrt_rtx",
    version="1.7.1",
    compute_capability=(),
    plugin_sha256="0" * 64,
    profiles=({"offsets": Profile(min=(1, 1, 3), opt=(8, 1, 3), max=(32, 1, 3))},),
)


class Builder:
    """Stands in for ``build_engine``: remembers what it was asked, and gives an engine that names itself."""

    def __init__(self) -> None:
        self.asked: list[dict] = []

    def __call__(self, model: bytes, **options: object) -> tuple[bytes, Engine]:
        self.asked.append(options)
        flavour = str(options.get("flavour", "tensorrt_rtx"))
        content = f"engine {len(self.asked)} of {len(model)} bytes".encode()
        return content, ENGINE.model_copy(update={"flavour": flavour, "file": f"{flavour}.engine"})


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Builder:
    stand_in = Builder()
    monkeypatch.setattr(bundles, "build_engine", stand_in)
    return stand_in


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return to_onnx(modules.SphereRenderer(), modules.inputs(1), tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
@pytest.mark.parametrize("fp16", [False, True])
def test_a_module(tmp_path: Path, name: str, fp16: bool) -> None:
    module, example = modules.SphereRenderer(), modules.inputs(3)
    path = to_bundle(
        module, example, tmp_path / name, fp16=fp16, meanings={"offsets": "[B, 1, 3] shift", "mask": "soft"}
    )
    bundle = Bundle(path)
    manifest = bundle.manifest
    assert sorted(manifest.files) == ["model.onnx", "sample.npz"]
    graph = onnx.load_from_string(bundle.read("model.onnx")).graph
    assert [tensor.name for tensor in manifest.inputs] == [value.name for value in graph.input]
    assert [tensor.name for tensor in manifest.outputs] == [value.name for value in graph.output]
    described = {tensor.name: (tensor.dtype, tensor.shape, tensor.meaning) for tensor in manifest.inputs}
    assert described["offsets"] == ("float32", ("batch", 1, 3), "[B, 1, 3] shift")
    assert described["world_to_clip"][2].startswith("[B, 4, 4] camera")
    meanings = {tensor.name: tensor.meaning for tensor in manifest.outputs}
    assert meanings["mask"] == "soft"
    assert "background" in meanings["face_index"]
    assert (manifest.schema_version, manifest.opset, manifest.onnxruntime_api) == (1, 18, schema.ONNXRUNTIME_API)
    assert manifest.engines == ()
    assert list(tmp_path.iterdir()) == [path]


def test_the_sample_is_what_torch_makes_of_the_inputs(tmp_path: Path) -> None:
    module, (offsets, world_to_clip) = modules.SphereRenderer(), modules.inputs(2)
    other = (offsets + 0.1, world_to_clip)
    bundle = Bundle(to_bundle(module, (offsets, world_to_clip), tmp_path / "bundle", sample_args=other))
    with np.load(io.BytesIO(bundle.read("sample.npz"))) as arrays:
        assert np.array_equal(arrays["input.offsets"], other[0].numpy())
        assert np.array_equal(arrays["output.image"], module(*other).image.detach().numpy())
        assert len(arrays.files) == 2 + 4


@pytest.mark.parametrize("fp16", [False, True])
def test_the_bundle_passes_its_own_sample(tmp_path: Path, fp16: bool) -> None:
    path = to_bundle(modules.SphereRenderer(), modules.inputs(2), tmp_path / "bundle.zip", fp16=fp16)
    report = compare_sample(path, doors=["cpu"])
    assert report.passed, str(report)


def test_an_engine_with_the_export(tmp_path: Path, builder: Builder) -> None:
    path = to_bundle(modules.SphereRenderer(), modules.inputs(1), tmp_path / "bundle", tensorrt={"flavour": "tensorrt"})
    bundle = Bundle(path)
    [engine] = bundle.manifest.engines
    assert builder.asked == [{"flavour": "tensorrt", "progress": None}]
    assert bundle.read(engine.file) == f"engine 1 of {len(bundle.read('model.onnx'))} bytes".encode()


def test_engines_are_added_and_replaced(tmp_path: Path, model: Path, builder: Builder) -> None:
    path = bundle_model(model, tmp_path / "bundle")
    assert Bundle(path).manifest.sample is None
    assert Bundle(path).read("model.onnx") == model.read_bytes()
    add_engine(path)
    add_engine(path, {"flavour": "tensorrt", "carry_plugin": True})
    assert [engine.flavour for engine in Bundle(path).manifest.engines] == ["tensorrt", "tensorrt_rtx"]
    add_engine(path)
    engines = {engine.flavour: Bundle(path).read(engine.file)[:8] for engine in Bundle(path).manifest.engines}
    assert engines == {"tensorrt_rtx": b"engine 3", "tensorrt": b"engine 2"}


def test_output_leaves_the_bundle(tmp_path: Path, model: Path, builder: Builder) -> None:
    path = bundle_model(model, tmp_path / "bundle")
    before = Bundle(path).manifest
    add_engine(path, output=tmp_path / "other.zip")
    assert Bundle(path).manifest == before
    assert len(Bundle(tmp_path / "other.zip").manifest.engines) == 1


def test_a_build_that_fails_leaves_the_bundle(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: bytes, **options: object) -> None:
        raise DibrError("no")

    path = bundle_model(model, tmp_path / "bundle.zip")
    before = path.read_bytes()
    monkeypatch.setattr(bundles, "build_engine", fail)
    with pytest.raises(DibrError, match="no"):
        add_engine(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_api_floor_is_what_the_library_asks_for() -> None:
    header = (ROOT / "plugins" / "onnxruntime" / "api.h").read_text()
    assert f"kApiVersion = {schema.ONNXRUNTIME_API};" in header


class SixteenBit(nn.Module):
    def forward(self, positions: Tensor) -> Tensor:
        return (positions * 2).to(torch.bfloat16)


def test_what_is_refused(tmp_path: Path, model: Path) -> None:
    with pytest.raises(DibrError, match=r"the folder .*nowhere does not exist"):
        to_bundle(modules.SphereRenderer(), modules.inputs(1), tmp_path / "nowhere" / "bundle")
    with pytest.raises(DibrError, match=r"output.output is bfloat16, which a sample cannot hold"):
        to_bundle(SixteenBit(), torch.rand(1, 4), tmp_path / "bundle")
    with pytest.raises(FileNotFoundError, match=r"none.onnx does not exist"):
        bundle_model(tmp_path / "none.onnx", tmp_path / "bundle")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DibrError, match="would replace something that is no bundle"):
        bundle_model(model, tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_engines_are_added_without_torch_and_onnx(tmp_path: Path, model: Path) -> None:
    """Up to TensorRT, which is not in this environment."""
    path = bundle_model(model, tmp_path / "bundle")
    code = (
        "import sys\n"
        "from dibr_deploy.errors import DoorAbsent\n"
        "from dibr_deploy.export import add_engine\n"
        "try:\n"
        f"    add_engine({str(path)!r}, {{'flavour': 'tensorrt'}})\n"
        "except DoorAbsent as error:\n"
        "    assert 'tensorrt is not installed' in str(error), error\n"
        "assert not {'torch', 'onnx', 'onnxscript', 'onnxruntime'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_session_opens_it(tmp_path: Path) -> None:
    module, example = modules.SphereRenderer(), modules.inputs(2)
    path = to_bundle(module, example, tmp_path / "bundle.zip")
    outputs = Session(path, "cpu").run(*(tensor.numpy() for tensor in example))
    assert np.abs(outputs["image"] - module(*example).image.detach().numpy()).max() < 1e-5
