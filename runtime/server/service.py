"""The service without a protocol: accepts requests for models, answers them, and comes to an orderly end."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np

import dibr_deploy
from dibr_deploy.errors import DibrError, one_line
from dibr_deploy.runtime.arrays import feed_of

from .batching import Arrays, Batcher
from .errors import Reason, RequestError
from .metrics import Metrics
from .repository import Model, ModelSpec, Repository
from .settings import Settings
from .tensors import invalid, quoted

log = logging.getLogger(__name__)

T = TypeVar("T")

NAME = "dibr_deploy"
EXTENSIONS = ("binary_tensor_data", "model_repository")


class InferRequest(NamedTuple):
    """A request as both protocols have it."""

    inputs: Mapping[str, np.ndarray]
    outputs: Sequence[str] | None
    """Names of those that are wanted; None wants all."""
    timeout: float | None
    """Seconds; None leaves it to the settings."""


class Service:
    """Models and what happens to requests for them.

    Raises what ``Session`` raises, where a model cannot be opened.
    """

    def __init__(self, specs: Sequence[ModelSpec], settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.models = Repository(specs, settings, self.metrics)
        self.decoding = asyncio.Semaphore(os.cpu_count() or 1)
        """Held while an image file is decoded, which takes memory."""
        self._turn = asyncio.Semaphore(1)
        self._exchanges = 0
        self._accepting = True
        self.metrics.ready.set(1)

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        return self._accepting

    @property
    def version(self) -> str:
        from importlib.metadata import version

        return version(dibr_deploy.__name__)

    def stop_accepting(self) -> None:
        """From now on new requests are refused; accepted ones go on."""
        self._accepting = False
        self.metrics.ready.set(0)

    def hold(self) -> Callable[[], None]:
        """Counts an exchange with a client, from its request until its answer has been sent, when the result is called.

        ``finish`` waits for the exchanges that began while requests were taken.
        """
        if not self._accepting:
            return lambda: None
        self._exchanges += 1
        return self._release

    def _release(self) -> None:
        self._exchanges -= 1

    @contextmanager
    def held(self) -> Iterator[None]:
        """``hold``, for the time of a ``with`` block."""
        release = self.hold()
        try:
            yield
        finally:
            release()

    async def finish(self, timeout: float) -> bool:
        """Wait until accepted requests are answered; False where some are left after so many seconds."""
        end = time.monotonic() + timeout
        while self._exchanges:
            if time.monotonic() >= end:
                log.warning("requests are given up", extra={"requests": self._exchanges})
                return False
            await asyncio.sleep(0.01)
        return True

    @contextmanager
    def accepted(self, name: str, version: str, protocol: str) -> Iterator[Model]:
        """A request for a model, from its acceptance until its answer is there; counts it and what becomes of it.

        Raises RequestError: the model is unknown or the service is shutting down.
        """
        if not self._accepting:
            raise RequestError(Reason.UNAVAILABLE, "the service is shutting down")
        model = self.models.acquire(name, version)
        labels = (model.name, model.version, protocol)
        try:
            yield model
            self.metrics.requests.labels(*labels).inc()
        except RequestError as error:
            self.metrics.failures.labels(*labels, error.reason.name.lower()).inc()
            raise
        except asyncio.CancelledError:
            self.metrics.failures.labels(*labels, "cancelled").inc()
            raise
        except Exception:
            self.metrics.failures.labels(*labels, Reason.FAILED.name.lower()).inc()
            raise
        finally:
            model.release()

    def deadline(self, timeout: float | None, received: float | None = None) -> float:
        """Of ``time.monotonic``, for a request that has come in then, or now."""
        began = time.monotonic() if received is None else received
        return began + min(self.settings.timeout, self.settings.timeout if timeout is None else timeout)

    async def in_turn(self, deadline: float, work: Callable[..., T], *arguments: Any) -> T:
        """The result of work in a thread, one at a time: for long JSON and long messages of gRPC, which as objects take
        many times their own memory.

        A caller that is cancelled does not end the work, nor its turn. Raises RequestError where the turn does not come
        before the deadline.
        """

        def working() -> T:
            try:
                return work(*arguments)
            except RequestError as error:
                raise error.with_traceback(None) from None  # it would keep the objects until the next has its own

        def end(task: asyncio.Future[T]) -> None:
            self._turn.release()
            if not task.cancelled():
                task.exception()  # nobody else asks, where the caller was cancelled

        await self.before(deadline, self._turn.acquire())
        task = asyncio.ensure_future(asyncio.to_thread(working))
        task.add_done_callback(end)
        return await asyncio.shield(task)

    @staticmethod
    async def before(deadline: float, waiting: Awaitable[T]) -> T:
        """What is waited for; RequestError where it does not come before the deadline."""
        try:
            return await asyncio.wait_for(waiting, max(deadline - time.monotonic(), 0.0))
        except (TimeoutError, asyncio.TimeoutError):
            raise RequestError(Reason.DEADLINE, "the request's time is over") from None

    async def infer(self, model: Model, request: InferRequest, deadline: float) -> Arrays:
        """The wanted outputs, by name in the order in which they are wanted.

        Raises RequestError. Where the caller is cancelled, a request that has not begun is dropped.
        """
        known = [info.name for info in model.session.outputs]
        for name in request.outputs or ():
            if name not in known:
                raise invalid(f"the model has no output {quoted(name)}, its outputs are {', '.join(known)}")
        outputs = await self.run(model, request.inputs, deadline)
        return {name: outputs[name] for name in (request.outputs or known)}

    async def run(self, model: Model, inputs: Mapping[str, Any], deadline: float) -> Arrays:
        """All outputs of one run, in a batch with others. Raises RequestError."""
        return await self.run_in(model.batcher, inputs, deadline)

    async def run_in(self, batcher: Batcher, inputs: Mapping[str, Any], deadline: float) -> Arrays:
        """The same, of a queue. Raises RequestError."""
        try:
            feed = feed_of(batcher.session.inputs, (), inputs)
        except DibrError as error:
            raise invalid(one_line(error)) from None
        work = batcher.submit(feed, deadline)
        return await self.before(deadline, asyncio.wrap_future(work.future))

    def close(self, timeout: float) -> bool:
        """Give up the models, once what they have accepted is done; False where one of them hangs for longer."""
        self.stop_accepting()
        return self.models.close(timeout)


def timeout_of(parameters: Mapping[str, Any]) -> float | None:
    """Seconds, of a request's parameter ``timeout`` in microseconds; refuses parameters that would change the answer
    and are not offered."""
    for name in parameters:
        if name.startswith("sequence_") and parameters[name]:
            raise invalid("sequences are not offered: every request stands for itself")
    value = parameters.get("timeout")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise invalid("parameter timeout must be a number of microseconds")
    return value / 1e6 if value else None
