"""Run an exported model: arrays in, arrays out, without torch."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from dibr_deploy.errors import DibrError, DoorAbsent

from . import schema
from .arrays import check_outputs, feed_of
from .backend import Backend, TensorInfo
from .batch_axis import batched_outputs, join, part
from .kinds import is_bundle
from .libraries import check_schema_version
from .onnx_file import OnnxHeader, parse_header, parse_interface, read_header
from .onnxruntime_backend import OnnxModel, OnnxRuntimeBackend, check_api, offers

if TYPE_CHECKING:
    from .bundle import Bundle
    from .manifest import Manifest

__all__ = ["PROVIDERS", "Session", "TensorInfo"]

PIXELS = "pixels"
"""Input of the graph that makes pictures fit."""
PROVIDERS = ("cpu", "cuda", "tensorrt", "onnxruntime-tensorrt")


class Session:
    """One model, opened once and run many times; several threads may run it at the same time.

    Of a bundle the manifest is checked first, then each file that is used: length, SHA-256, versions, and that the
    model has the inputs and outputs that the manifest names. What was checked is what is loaded.

    Args:
        path: a bundle (folder or .zip) or a model written by ``dibr export``, or any other ONNX file; or a ``Bundle``
            that is open already.
        provider: where to run.
            "cpu", "cuda": ONNX Runtime.
            "tensorrt": TensorRT, with an engine of the bundle.
            "onnxruntime-tensorrt": ONNX Runtime's TensorRT provider, which builds its engines itself.
            "auto": tensorrt where this machine can open an engine of the bundle, else cuda where ONNX Runtime can run
            on it, else cpu. ``session.provider`` says which it is.
        threads: how many threads one operator may use on the CPU; None lets ONNX Runtime take one per core. Results of
            our ops do not depend on it.
        instances: tensorrt: how many runs may be on the device at the same time.
        cuda_graphs: tensorrt: record the launches of each shape once and replay them.
        device: number of the CUDA device.
        engine_cache: onnxruntime-tensorrt: folder in which engines are kept for the next time; None keeps none.

    Raises:
        FileNotFoundError: there is no such file, or the model needs our custom-op library and it is not installed.
        DoorAbsent: the provider is not on this machine or not for this model.
        DibrError: the file or bundle is damaged, it needs newer versions than are installed, or the model is refused;
            one sentence that says why.
    """

    path: Path
    provider: str
    """Where it runs: one of ``PROVIDERS``."""
    metadata: dict[str, str]
    """Of the ONNX file; of a TensorRT engine the same from the manifest."""
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]

    def __init__(
        self,
        path: str | Path | Bundle,
        provider: str = "auto",
        *,
        threads: int | None = None,
        instances: int = 1,
        cuda_graphs: bool = True,
        device: int = 0,
        engine_cache: str | Path | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise DibrError(f"threads must be at least 1, got {threads}")
        if instances < 1:
            raise DibrError(f"instances must be at least 1, got {instances}")
        if device < 0:
            raise DibrError(f"device must be at least 0, got {device}")
        if provider not in ("auto", *PROVIDERS):
            raise DibrError(f"provider must be one of auto, {', '.join(PROVIDERS)}, got {provider!r}")
        self.path = Path(path) if isinstance(path, (str, Path)) else path.path
        self._threads, self._instances, self._cuda_graphs, self._device = threads, instances, cuda_graphs, device
        self._engine_cache = None if engine_cache is None else Path(engine_cache)
        self._idle = Condition()
        self._running = 0
        self._bundle = _open_bundle(path) if isinstance(path, (str, Path)) else path
        self._pictures: Backend | None = None
        self._opening = Lock()
        self._pictures_model = _preprocess_model(self._bundle)
        self._pool: ThreadPoolExecutor | None = None
        self._model: OnnxModel | None = None
        self._backend: Backend | None = self._open_first() if provider == "auto" else self._open(provider)
        self._model = None  # ONNX Runtime has what it needs of the bytes
        self.inputs, self.outputs = self._backend.inputs, self._backend.outputs

    def run(self, *arrays: Any, **named_arrays: Any) -> dict[str, np.ndarray]:
        """Run the model once.

        Args:
            arrays: the first inputs in the model's order: numpy arrays or whatever has ``__dlpack__``, such as torch
                tensors. C-contiguous ones are read where they are; tensors on a device are for provider tensorrt.
            named_arrays: the other inputs by name. Every input must have the model's dtype and shape.

        Returns:
            Every output by name.

        Raises:
            DibrError: an input is missing, unknown, given twice, or of another dtype or shape, an operator refuses its
                input, or the session is closed; one sentence that says which and why.
        """
        backend = self._begin_run()
        try:
            return backend.run(feed_of(self.inputs, arrays, named_arrays))
        finally:
            self._end_run()

    def run_async(self, *arrays: Any, **named_arrays: Any) -> Future[dict[str, np.ndarray]]:
        """``run`` in another thread: ``instances`` runs at the same time, further ones one after another.

        The arrays must not change until the future is done. What the caller did wrong is raised here, and what goes
        wrong in the run by the future. Futures that have not begun can be cancelled; ``close`` lets all others end.
        """
        with self._opened() as backend:
            feed = feed_of(self.inputs, arrays, named_arrays)
            with self._idle:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(self._instances, "dibr-session")
                self._running += 1
                future = self._pool.submit(backend.run, feed)
        future.add_done_callback(self._end_run)
        return future

    def run_into(self, outputs: Mapping[str, np.ndarray], *arrays: Any, **named_arrays: Any) -> dict[str, np.ndarray]:
        """``run`` with outputs written into arrays of the caller's.

        With provider "cpu" ONNX Runtime writes them in place; elsewhere they are copied there. Inputs are read in place
        as in ``run``, so that a loop over the same arrays allocates no tensor.

        Args:
            outputs: some of the outputs by name: C-contiguous, writable numpy arrays of the output's dtype and shape.
            arrays, named_arrays: as in ``run``.

        Returns:
            Every output by name; of those given the very arrays.

        Raises:
            DibrError: as ``run``; or an array does not fit. What is in the arrays then is not defined.
        """
        with self._opened() as backend:
            feed = feed_of(self.inputs, arrays, named_arrays)
            check_outputs(self.inputs, self.outputs, feed, outputs)
            if isinstance(backend, OnnxRuntimeBackend):
                return backend.run_into(feed, outputs)
            results = backend.run(feed)
            for name, array in outputs.items():
                np.copyto(array, results[name])
            return {**results, **outputs}

    def run_in_batches(self, size: int, *arrays: Any, **named_arrays: Any) -> dict[str, np.ndarray]:
        """``run`` of a batch of any length, at most ``size`` of it at a time.

        Raises:
            DibrError: as ``run``; or size is below 1, or the model has no batch axis.
        """
        if size < 1:
            raise DibrError(f"size must be at least 1, got {size}")
        batched = batched_outputs(self.inputs, self.outputs)
        if batched is None:
            raise DibrError(f"model {self.path} has no batch axis, which would be axis 0 of every input with one name")
        feed = feed_of(self.inputs, arrays, named_arrays)
        length = next(iter(feed.values())).shape[0]
        starts = range(0, max(length, 1), size)
        return join([self.run(**part(feed, start, start + size, frozenset(feed))) for start in starts], batched)

    def run_on_device(self, *arrays: Any, **named_arrays: Any) -> dict[str, Any]:
        """Like ``run``, but outputs stay where they are computed: objects with ``__dlpack__`` that torch, CuPy and
        others take without a copy; numpy arrays where ONNX Runtime runs the model."""
        with self._opened() as backend:
            return backend.run_on_device(feed_of(self.inputs, arrays, named_arrays))

    def warm_up(self, *arrays: Any, **named_arrays: Any) -> None:
        """Run once and forget the outputs, so that the first caller does not wait for what is prepared at a first run.

        Without arguments, on the bundle's sample, else on zeros with every size that has a name set to 1.
        Raises as ``run``.
        """
        guessed = not (arrays or named_arrays or self.has_sample)
        feed = named_arrays if arrays or named_arrays else self._example()
        try:
            self.run(*arrays, **feed)
        except DibrError as error:
            if not guessed:
                raise
            raise DibrError(f"warm_up() needs arrays for this model: {error}") from error

    @property
    def has_sample(self) -> bool:
        """Whether the model is a bundle that holds inputs of its own."""
        return self._bundle is not None and self._bundle.manifest.sample is not None

    def preprocess(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """A picture of any size as the model's input: ``session.run(**session.preprocess(pixels), ...)``.

        The bundle's own graph does it: the same bytes in every language.

        Args:
            pixels: uint8 [H, W, 3], or [H, W, 4] with transparency that is not premultiplied; row 0 at the top.

        Returns:
            The input by its name, with a batch of one.

        Raises:
            DibrError: the pixels are something else, or the model is no bundle with such a graph.
        """
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3:
            described = f"{pixels.dtype} {list(pixels.shape)}" if isinstance(pixels, np.ndarray) else type(pixels)
            raise DibrError(f"pixels must be a uint8 array [H, W, 3] or [H, W, 4], got {described}")
        if pixels.shape[2] not in (3, 4) or 0 in pixels.shape:
            raise DibrError(f"pixels must have shape [H, W, 3] or [H, W, 4], got {list(pixels.shape)}")
        with self._opened():
            return self._preprocessor().run({PIXELS: np.ascontiguousarray(pixels)})

    @property
    def can_preprocess(self) -> bool:
        """Whether the model is a bundle that says how pictures become its input."""
        return self._pictures_model is not None

    def open_renderer(self) -> Session | None:
        """A session of the bundle's renderer alone, on the CPU: it takes what this model predicts, and a camera.

        None where the bundle has none, or there is no bundle.
        """
        if self._bundle is None or self._bundle.manifest.renderer is None:
            return None
        return Session._of_part(self, self._bundle.manifest.renderer)

    def close(self) -> None:
        """Give back what the session holds, once every run that has begun has ended. Closing again does nothing."""
        with self._idle:
            backend, self._backend = self._backend, None
            self._idle.wait_for(lambda: self._running == 0)
            pool, self._pool = self._pool, None
            pictures, self._pictures = self._pictures, None
        if pool is not None:
            pool.shutdown()
        for opened in (backend, pictures):
            if opened is not None:
                opened.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _opened(self) -> Iterator[Backend]:
        """The backend, which close() leaves alone meanwhile."""
        backend = self._begin_run()
        try:
            yield backend
        finally:
            self._end_run()

    def _begin_run(self) -> Backend:
        """The backend, which close() leaves alone until _end_run."""
        with self._idle:
            if self._backend is None:
                raise DibrError(f"the session of {self.path} is closed: open a new one")
            self._running += 1
            return self._backend

    def _end_run(self, *_: Future[Any]) -> None:
        with self._idle:
            self._running -= 1
            if self._running == 0:
                self._idle.notify_all()

    @classmethod
    def _of_part(cls, whole: Session, name: str) -> Session:
        """A session of another ONNX file of a bundle."""
        assert whole._bundle is not None
        session = cls.__new__(cls)
        session.path, session.provider = whole.path / name, "cpu"
        session._idle, session._running, session._bundle, session._pictures = Condition(), 0, None, None
        session._pictures_model, session._opening = None, Lock()
        session._pool, session._instances = None, 1
        model = _part(whole._bundle, name)
        session._backend = OnnxRuntimeBackend(model, "cpu", threads=whole._threads)
        session.metadata = model.header.metadata
        session.inputs, session.outputs = session._backend.inputs, session._backend.outputs
        return session

    def _preprocessor(self) -> Backend:
        if self._pictures_model is None:
            raise DibrError(
                f"model {self.path} does not say how a picture becomes its input: a bundle that `dibr export` writes "
                f"of a checkpoint does"
            )
        with self._opening:
            if self._pictures is None:
                self._pictures = OnnxRuntimeBackend(self._pictures_model, "cpu", threads=self._threads)
            return self._pictures

    def _open_first(self) -> Backend:
        """With the first provider that can open here."""
        candidates = ["cuda"] if offers("cuda") else []
        if self._bundle is not None and self._bundle.manifest.engines:
            candidates.insert(0, "tensorrt")
        for provider in candidates:
            try:
                return self._open(provider)
            except (DoorAbsent, FileNotFoundError):
                pass
            except DibrError as error:
                warnings.warn(f"provider {provider} is passed over: {error}", RuntimeWarning, stacklevel=3)
        return self._open("cpu")

    def _open(self, provider: str) -> Backend:
        backend = self._open_engine() if provider == "tensorrt" else self._open_onnx(provider)
        self.provider = provider
        return backend

    def _open_engine(self) -> Backend:
        if self._bundle is None:
            raise DoorAbsent(
                f"model {self.path} is no bundle, and provider tensorrt needs an engine: make a bundle with one by "
                f"`dibr export --tensorrt`"
            )
        from .tensorrt_backend import TensorRtBackend

        backend = TensorRtBackend(
            self._bundle, instances=self._instances, cuda_graphs=self._cuda_graphs, device=self._device
        )
        self.metadata = _metadata(self._bundle.manifest)
        return backend

    def _open_onnx(self, provider: str) -> Backend:
        if self._model is None:
            self._model = _checked_model(self._bundle) if self._bundle is not None else _bare_model(self.path)
        backend = OnnxRuntimeBackend(
            self._model, provider, threads=self._threads, device=self._device, engine_cache=self._engine_cache
        )
        self.metadata = self._model.header.metadata
        return backend

    def _example(self) -> dict[str, np.ndarray]:
        if self.has_sample:
            assert self._bundle is not None
            from .comparison import read_sample

            return read_sample(self._bundle)[0]
        sizes = {info.name: [size if isinstance(size, int) else 1 for size in info.shape] for info in self.inputs}
        return {info.name: np.zeros(sizes[info.name], info.dtype) for info in self.inputs}


def _open_bundle(path: str | Path) -> Bundle | None:
    """None where the path is not a folder or zip file."""
    if not is_bundle(path):
        return None
    from .bundle import Bundle

    return Bundle(path)


def _bare_model(path: Path) -> OnnxModel:
    header = read_header(path)
    if schema.OP_DOMAIN in header.opsets:
        check_schema_version(path, _schema_version(header))
    return OnnxModel(path, path, header)


def _checked_model(bundle: Bundle) -> OnnxModel:
    """The bundle's ONNX file, once it and the installed versions are what the manifest says."""
    manifest = bundle.manifest
    check_schema_version(bundle.path, manifest.schema_version)
    check_api(bundle.path, manifest.onnxruntime_api)
    content = bundle.read(manifest.model)
    path = bundle.path / manifest.model
    header = parse_header(io.BytesIO(content), len(content), path)
    check_schema_version(path, _schema_version(header))
    stated = [(tensor.name, tensor.dtype, tensor.shape) for tensor in (*manifest.inputs, *manifest.outputs)]
    interface = parse_interface(content, path)
    if stated != [tuple(info) for info in (*interface.inputs, *interface.outputs)]:
        raise DibrError(
            f"bundle {bundle.path}: the inputs and outputs of {manifest.model} are not those that its manifest "
            f"names: export the bundle again"
        )
    return OnnxModel(path, content, header)


def _preprocess_model(bundle: Bundle | None) -> OnnxModel | None:
    """Read now, though it is opened at the first picture: the file may be replaced until then."""
    if bundle is None or bundle.manifest.preprocess is None:
        return None
    return _part(bundle, bundle.manifest.preprocess)


def _part(bundle: Bundle, name: str) -> OnnxModel:
    """Another ONNX file of the bundle."""
    content = bundle.read(name)
    path = bundle.path / name
    header = parse_header(io.BytesIO(content), len(content), path)
    if schema.OP_DOMAIN in header.opsets:
        check_schema_version(path, _schema_version(header))
        check_api(bundle.path, bundle.manifest.onnxruntime_api)
    return OnnxModel(path, content, header)


def _schema_version(header: OnnxHeader) -> int:
    """Of the ai.dibr ops that the model uses; 0 where it uses none."""
    stated = header.metadata.get(schema.METADATA_SCHEMA_VERSION, "")
    return max(header.opsets.get(schema.OP_DOMAIN, 0), int(stated) if stated.isdecimal() else 0)


def _metadata(manifest: Manifest) -> dict[str, str]:
    """What the exporter writes into the metadata of an ONNX file."""
    meanings = {tensor.name: tensor.meaning for tensor in manifest.outputs if tensor.meaning}
    return {
        schema.METADATA_SCHEMA_VERSION: str(manifest.schema_version),
        schema.METADATA_PRODUCER: manifest.producer,
        schema.METADATA_OPSET: str(manifest.opset),
        schema.METADATA_OUTPUTS: json.dumps(meanings),
    }
