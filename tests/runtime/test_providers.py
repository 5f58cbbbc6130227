"""Which provider a session takes, what it tells ONNX Runtime, and that it never runs elsewhere in silence.

ONNX Runtime's GPU providers need a GPU: here its session is a double that keeps what it is told and runs on the CPU."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest
from runtime_bundles import write_model_bundle

from dibr_deploy import _native
from dibr_deploy.errors import DibrError, DoorAbsent
from dibr_deploy.runtime import Session, schema
from dibr_deploy.runtime.manifest import Engine

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
ROOT = Path(__file__).resolve().parents[2]

Told = list[SimpleNamespace]


@pytest.fixture
def onnxruntime_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Told]:
    """onnxruntime_with(offered, loaded=offered, error=None): what InferenceSession is told from here on.

    error: what opening a session on anything but the CPU raises."""

    def install(offered: list[str], loaded: list[str] | None = None, error: Exception | None = None) -> Told:
        told: Told = []

        class Recorded(onnxruntime.InferenceSession):
            def __init__(self, content: Any, options: Any, providers: list[Any], **others: Any) -> None:
                told.append(SimpleNamespace(content=content, providers=providers, others=others))
                if error is not None and providers != [CPU]:
                    raise error
                super().__init__(content, options, providers=[CPU], **others)
                self.asked = [name if isinstance(name, str) else name[0] for name in providers]

            def get_providers(self) -> list[str]:
                return [name for name in self.asked if name in (offered if loaded is None else loaded)]

        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
        monkeypatch.setattr(onnxruntime, "InferenceSession", Recorded)
        return told

    return install


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the library that ONNX Runtime's TensorRT provider is told of."""
    folder = tmp_path / "lib"
    folder.mkdir()
    (folder / "libdibr_tensorrt_static.so").write_bytes(b"")
    monkeypatch.setenv(_native.LIBRARY_DIR_VARIABLE, str(folder))
    return folder / "libdibr_tensorrt_static.so"


def test_cuda(model: Path, session: Session, arrays: tuple, onnxruntime_with) -> None:
    told = onnxruntime_with([TENSORRT, CUDA, CPU])
    opened = Session(model, "cuda", device=3)
    assert opened.provider == "cuda"
    assert told[0].providers == [(CUDA, {"device_id": "3"}), CPU]
    assert told[0].others == {"enable_fallback": 0}
    assert opened.run(*arrays)["depth"].tobytes() == session.run(*arrays)["depth"].tobytes()


def test_onnxruntime_tensorrt(model: Path, arrays: tuple, onnxruntime_with, plugins: Path) -> None:
    told = onnxruntime_with([TENSORRT, CUDA, CPU])
    opened = Session(model, "onnxruntime-tensorrt", device=1)
    assert opened.provider == "onnxruntime-tensorrt"
    options = {"device_id": "1", "trt_extra_plugin_lib_paths": str(plugins)}
    assert told[0].providers == [(TENSORRT, options), (CUDA, {"device_id": "1"}), CPU]
    assert opened.run(*arrays)


def test_engines_are_kept_only_where_asked(model: Path, tmp_path: Path, onnxruntime_with, plugins: Path) -> None:
    told = onnxruntime_with([TENSORRT, CUDA, CPU])
    Session(model, "onnxruntime-tensorrt", engine_cache=tmp_path / "engines")
    [(_, options), *_] = told[0].providers
    assert options == {
        "device_id": "0",
        "trt_extra_plugin_lib_paths": str(plugins),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(tmp_path / "engines"),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(tmp_path / "engines"),
    }


def test_a_tensorrt_provider_without_cuda(model: Path, onnxruntime_with, plugins: Path) -> None:
    told = onnxruntime_with([TENSORRT, CPU])
    Session(model, "onnxruntime-tensorrt")
    assert [name if isinstance(name, str) else name[0] for name in told[0].providers] == [TENSORRT, CPU]


def test_a_tensorrt_provider_without_our_plugins(model: Path, onnxruntime_with) -> None:
    onnxruntime_with([TENSORRT, CUDA, CPU])
    try:
        _native.library_path("libdibr_tensorrt_static.so")
        pytest.skip("this installation has the TensorRT door")
    except FileNotFoundError:
        pass
    sentence = r"^provider onnxruntime-tensorrt: .*libdibr_tensorrt_static.so is not in .*DIBR_TENSORRT=ON"
    with pytest.raises(DoorAbsent, match=sentence):
        Session(model, "onnxruntime-tensorrt")


@pytest.mark.parametrize(
    ("provider", "offered"),
    [("cuda", [CPU]), ("cuda", ["AzureExecutionProvider", CPU]), ("onnxruntime-tensorrt", [CUDA, CPU])],
)
def test_a_provider_that_is_not_offered(model: Path, onnxruntime_with, plugins, provider: str, offered: list) -> None:
    onnxruntime_with(offered)
    sentence = f"provider {provider} is not in this onnxruntime, which offers {', '.join(offered)}"
    with pytest.raises(DoorAbsent, match=f"^{sentence}$"):
        Session(model, provider)


@pytest.mark.parametrize(
    ("provider", "missing", "loaded"),
    [("cuda", CUDA, [CPU]), ("onnxruntime-tensorrt", TENSORRT, [CUDA, CPU]), ("onnxruntime-tensorrt", TENSORRT, [CPU])],
)
def test_a_provider_that_cannot_be_loaded(model: Path, onnxruntime_with, plugins, provider, missing, loaded) -> None:
    """ONNX Runtime would go on with the others."""
    onnxruntime_with([TENSORRT, CUDA, CPU], loaded)
    sentence = (
        rf"ONNX Runtime could not load its {missing} and would run on {', '.join(loaded)}; it needs .*dibr doctor"
    )
    with pytest.raises(DoorAbsent, match=sentence):
        Session(model, provider)


def test_a_provider_that_fails(model: Path, onnxruntime_with) -> None:
    onnxruntime_with([CUDA, CPU], error=RuntimeError("CUDA failure 2: out of memory ; GPU=0\nmore"))
    with pytest.raises(DibrError, match=r"^model \S+ cannot be opened: CUDA failure 2: out of memory ; GPU=0$"):
        Session(model, "cuda")


@pytest.mark.parametrize(
    ("offered", "loaded", "expected"), [([CPU], None, "cpu"), ([CUDA, CPU], None, "cuda"), ([CUDA, CPU], [CPU], "cpu")]
)
def test_auto_takes_the_first_that_opens(model: Path, onnxruntime_with, offered, loaded, expected: str) -> None:
    onnxruntime_with(offered, loaded)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Session(model).provider == expected


def test_auto_says_what_it_passes_over(model: Path, onnxruntime_with) -> None:
    onnxruntime_with([CUDA, CPU], error=RuntimeError("CUDA failure 2: out of memory"))
    with pytest.warns(RuntimeWarning, match="provider cuda is passed over: .*out of memory"):
        assert Session(model).provider == "cpu"


def test_auto_on_a_model_that_nobody_opens(tmp_path: Path, onnxruntime_with) -> None:
    onnxruntime_with([CPU])
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(DibrError, match=r"is not an ONNX file|is cut off"):
        Session(tmp_path / "m.onnx")


def test_a_bundle_hands_over_the_bytes_that_were_checked(bundle: Path, model: Path, onnxruntime_with) -> None:
    told = onnxruntime_with([CPU])
    Session(bundle)
    assert told[0].content == model.read_bytes()


def test_auto_with_an_engine_that_cannot_be_opened_here(model: Path, tmp_path: Path, arrays: tuple) -> None:
    """No machine has the TensorRT that built it; the model serves instead, and the caller learns which it is."""
    content = b"engine of a TensorRT to come"
    engine = {
        "file": "model.engine",
        "flavour": "tensorrt",
        "version": "99.0.0.0",
        "compute_capability": ("8.9",),
        "plugin_sha256": "0" * 64,
    }
    path = write_model_bundle(tmp_path / "b.zip", model, others={"model.engine": content}, engines=(Engine(**engine),))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        opened = Session(path)
    assert opened.provider in ("cpu", "cuda")
    assert opened.run(*arrays)["mask"].shape[0] == 3
    with pytest.raises((DibrError, FileNotFoundError)):
        Session(path, "tensorrt")


def test_the_api_floor_is_that_of_the_library() -> None:
    [api] = re.findall(r"kApiVersion = (\d+);", (ROOT / "plugins" / "onnxruntime" / "api.h").read_text())
    assert int(api) == schema.ONNXRUNTIME_API


def test_an_old_onnxruntime(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", "1.9.2")
    with pytest.raises(DibrError, match=r"needs ONNX Runtime 1.17 or newer, but onnxruntime 1.9.2 is installed"):
        Session(bundle, "cpu")
