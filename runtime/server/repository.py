"""The models of a service: which, in which versions, from where, and what replaces them."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from dibr_deploy.errors import DibrError, one_line
from dibr_deploy.runtime.render import Predictor
from dibr_deploy.runtime.session import Session

from .batching import Batcher
from .errors import Reason, RequestError
from .metrics import Metrics
from .settings import Settings

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_SUFFIXES = (".zip", ".onnx")


class ModelSpec(NamedTuple):
    """A model to be served."""

    name: str
    version: str
    """A positive number; the largest one answers requests that ask for none."""
    path: Path
    """A bundle or an ONNX file."""


def parse_specs(texts: Sequence[str]) -> list[ModelSpec]:
    """Models from the command line.

    Args:
        texts: of each model ``PATH``, ``NAME=PATH`` or ``NAME:VERSION=PATH``; without a name it is the file's, without
            a version 1. A folder that is no bundle is a repository, with a bundle or ONNX file per model, called
            NAME.zip or NAME.onnx, or NAME/VERSION, NAME/VERSION.zip, NAME/VERSION.onnx.

    Raises:
        FileNotFoundError: there is nothing at a path.
        DibrError: a name or version is malformed or twice, or there is no model at all.
    """
    specs = [spec for text in texts for spec in _parse(text)]
    seen = set()
    for spec in specs:
        if not _NAME.fullmatch(spec.name):
            raise DibrError(
                f"model name {spec.name!r} must be letters, digits, '.', '_' and '-', at most 128, a letter or digit "
                f"first: give {spec.path} one by NAME={spec.path}"
            )
        if not _VERSION.fullmatch(spec.version):
            raise DibrError(f"version {spec.version!r} of model {spec.name} must be a positive number")
        if spec[:2] in seen:
            raise DibrError(f"version {spec.version} of model {spec.name} is given twice")
        seen.add(spec[:2])
    if not specs:
        raise DibrError("there is no model to serve")
    return specs


def _parse(text: str) -> list[ModelSpec]:
    named, separator, rest = text.partition("=")
    name, _, version = named.partition(":") if separator else ("", "", "")
    path = Path(rest if separator else text)
    if not path.exists():
        raise FileNotFoundError(f"model {path} does not exist")
    if path.is_dir() and not (path / "manifest.json").is_file():
        if separator:
            raise DibrError(f"model {path} is a folder without manifest.json, which is no bundle")
        return _of_folder(path)
    return [ModelSpec(name or _stem(path), version or "1", path)]


def _of_folder(folder: Path) -> list[ModelSpec]:
    found = []
    for path in sorted(folder.iterdir()):
        if _is_model(path):
            found.append(ModelSpec(_stem(path), "1", path))
        elif path.is_dir() and not path.name.startswith("."):
            found += [ModelSpec(path.name, _stem(each), each) for each in sorted(path.iterdir()) if _is_model(each)]
    return found


def _is_model(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    return path.suffix in _SUFFIXES if path.is_file() else (path / "manifest.json").is_file()


def _stem(path: Path) -> str:
    path = path.resolve()
    return path.stem if path.suffix in _SUFFIXES else path.name


class Model:
    """One version of a model, opened and warm."""

    def __init__(self, spec: ModelSpec, settings: Settings, metrics: Metrics) -> None:
        self.spec = spec
        self.stamp = _stamp(spec.path)
        self.session = Session(spec.path, settings.provider, threads=settings.threads, instances=settings.instances)
        try:
            self.warm = _warm_up(self.session, spec.name)
            self.predictor = _predictor(self.session)
            renderer = self.session.open_renderer() if self.predictor is not None else None
        except BaseException:
            self.session.close()
            raise
        self._released = threading.Condition()
        self._users = 0
        self._retired = False
        self.batcher = _batcher(self.session, settings, metrics, spec.name, spec.version)
        self.renderer = (
            None if renderer is None else _batcher(renderer, settings, metrics, f"{spec.name}.renderer", spec.version)
        )

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def version(self) -> str:
        return self.spec.version

    @property
    def batchers(self) -> list[Batcher]:
        return [self.batcher] if self.renderer is None else [self.batcher, self.renderer]

    def acquire(self) -> bool:
        """Keep it open until ``release``; False where another one has replaced it."""
        with self._released:
            self._users += not self._retired
            return not self._retired

    def release(self) -> None:
        with self._released:
            self._users -= 1
            self._released.notify_all()

    def retire(self, timeout: float) -> None:
        """Close it, once those who have acquired it have released it, or after so many seconds."""
        with self._released:
            self._retired = True
            self._released.wait_for(lambda: self._users == 0, timeout)
        self.close(timeout)

    def close(self, timeout: float) -> bool:
        """Take nothing more, and finish what is accepted; False where a run goes on for longer."""
        return _close(self.batchers, timeout)


def _warm_up(session: Session, name: str) -> bool:
    """Whether it ran. Raises DibrError where a bundle's own sample cannot be run; zeros may be no input of a model."""
    try:
        session.warm_up()
    except DibrError as error:
        if session.has_sample:
            raise DibrError(f"model {session.path} cannot run its bundle's own sample: {one_line(error)}") from error
        log.warning("model is not warm", extra={"model": name, "why": one_line(error)})
        return False
    return True


def _predictor(session: Session) -> Predictor | None:
    """None of a model that turns no photo into a mesh."""
    try:
        return Predictor(session)
    except DibrError:
        return None


def _batcher(session: Session, settings: Settings, metrics: Metrics, name: str, version: str) -> Batcher:
    return Batcher(
        session,
        instances=settings.instances,
        max_batch=settings.max_batch,
        max_delay=settings.max_delay,
        queue_limit=settings.queue_limit,
        metrics=metrics,
        labels=(name, version),
    )


def _close(batchers: Sequence[Batcher], timeout: float) -> bool:
    """All at the same time; False where one of them hangs."""
    if not batchers:
        return True
    with ThreadPoolExecutor(len(batchers)) as pool:
        return all(list(pool.map(lambda batcher: batcher.close(timeout), batchers)))


class Repository:
    """The models that are served now. Requests look them up; ``reload`` replaces them.

    Raises what ``Session`` raises, where a model cannot be opened.
    """

    def __init__(self, specs: Sequence[ModelSpec], settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._lock = threading.Lock()
        """Held while what follows is changed."""
        self._models: dict[str, dict[str, Model]] = {}
        self._retiring: list[Model] = []
        self._closed = False
        try:
            for spec in specs:
                self._put(Model(spec, settings, metrics))
        except BaseException:
            self.close(settings.timeout)
            raise

    def find(self, name: str, version: str = "") -> Model:
        """The model; of no version, the newest. Raises RequestError where there is none."""
        versions = self._models.get(name)
        if not versions:
            raise RequestError(Reason.NOT_FOUND, "there is no model of this name")
        if not version:
            return versions[max(versions, key=int)]
        if version not in versions:
            raise RequestError(Reason.NOT_FOUND, "the model has no such version")
        return versions[version]

    def acquire(self, name: str, version: str = "") -> Model:
        """The model, which stays open until its ``release``. Raises as ``find``."""
        while True:
            model = self.find(name, version)
            if model.acquire():
                return model

    def versions(self, name: str) -> list[str]:
        return sorted(self._models.get(name, {}), key=int)

    def all(self) -> list[Model]:
        """By name and version."""
        return [self._models[name][version] for name in sorted(self._models) for version in self.versions(name)]

    def reload(self) -> list[str]:
        """Open again what has changed on disk, in one thread at a time. A model whose successor cannot be opened or run
        stays as it is.

        Returns one sentence per such model.
        """
        problems = []
        for old in self.all():
            if self._closed:
                break
            try:
                if _stamp(old.spec.path) == old.stamp:
                    continue
                new = Model(old.spec, self._settings, self._metrics)
                if old.warm and not new.warm:
                    new.close(self._settings.timeout)
                    raise DibrError(f"model {old.spec.path} cannot be run on zeros, which its predecessor took")
            except (DibrError, OSError) as error:
                problems.append(one_line(error))
                log.error("model stays as it was", extra={"model": old.name, "why": one_line(error)})
                continue
            if not self._replace(old, new):
                new.close(self._settings.timeout)
                break
            log.info("model reloaded", extra={"model": old.name, "model_version": old.version})
            old.retire(self._settings.upload_timeout + self._settings.timeout)
            with self._lock:
                self._retiring.remove(old)
        return problems

    def close(self, timeout: float) -> bool:
        """Finish what is accepted, and close every model, replaced ones too; False where one of them hangs for longer.

        A ``reload`` that goes on meanwhile leaves nothing open.
        """
        with self._lock:
            self._closed = True
            models = [*self.all(), *self._retiring]
        return _close([batcher for model in models for batcher in model.batchers], timeout)

    def _replace(self, old: Model, new: Model) -> bool:
        """False where all models have been closed meanwhile."""
        with self._lock:
            if self._closed:
                return False
            self._retiring.append(old)
            self._put(new)
        return True

    def _put(self, model: Model) -> None:
        """In one step for those who look models up meanwhile."""
        versions: Mapping[str, Model] = self._models.get(model.name, {})
        self._models = {**self._models, model.name: {**versions, model.version: model}}


def _stamp(path: Path) -> tuple[int, int, int]:
    """Changes whenever the bundle or file is replaced."""
    status = (path / "manifest.json" if path.is_dir() else path).stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
