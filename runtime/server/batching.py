"""Dynamic batching: requests that wait for the same model are run together, along the batch axis.

A request is answered once: with its part of a run's outputs, or with the reason why there is none.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, InvalidStateError

import numpy as np

from dibr_deploy.errors import DibrError, one_line
from dibr_deploy.runtime.batch_axis import batched_outputs, join, part
from dibr_deploy.runtime.session import Session

from .errors import Reason, RequestError
from .metrics import Metrics

log = logging.getLogger(__name__)

Arrays = Mapping[str, np.ndarray]


class Work:
    """One accepted request.

    Args:
        feed: checked inputs.
        size: length of the batch axis; 1 where the model has none.
        deadline: of ``time.monotonic``.
    """

    __slots__ = ("accepted", "deadline", "feed", "future", "kind", "size")

    def __init__(self, feed: Arrays, size: int, deadline: float) -> None:
        self.feed = feed
        self.size = size
        self.deadline = deadline
        self.accepted = time.monotonic()
        self.future: Future[Arrays] = Future()
        self.kind = tuple((name, array.shape[1:]) for name, array in feed.items())
        """Requests of one kind can be run together."""

    def fail(self, reason: Reason, message: str) -> None:
        with contextlib.suppress(InvalidStateError):  # nobody waits any more
            self.future.set_exception(RequestError(reason, message))


class Batcher:
    """The queue of one model, and the threads that run it.

    Args:
        session: the model, which ``close`` closes.
        instances: how many runs at the same time.
        max_batch, max_delay, queue_limit: as in ``Settings``.
        labels: model and version, for the metrics.
    """

    def __init__(
        self,
        session: Session,
        *,
        instances: int,
        max_batch: int,
        max_delay: float,
        queue_limit: int,
        metrics: Metrics,
        labels: tuple[str, str],
    ) -> None:
        self.session = session
        self._batched = batched_outputs(session.inputs, session.outputs)
        self.can_batch = self._batched is not None
        self.max_batch = max_batch if self.can_batch else 1
        self._max_delay = max_delay
        self._queue_limit = queue_limit
        self._queue: deque[Work] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._labels = labels
        self._queue_seconds = metrics.queue_seconds.labels(*labels)
        self._compute_seconds = metrics.compute_seconds.labels(*labels)
        self._batch_size = metrics.batch_size.labels(*labels)
        metrics.waiting.labels(*labels).set_function(self._waiting)
        self._threads = [
            threading.Thread(target=self._serve, name=f"{'-'.join(labels)}-{number}", daemon=True)
            for number in range(instances)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, feed: Arrays, deadline: float) -> Work:
        """Accept a request, whose inputs have been checked against the session.

        Raises RequestError: the queue is full, the batch is too large, or the model is being closed.
        """
        size = next(iter(feed.values())).shape[0] if self.can_batch else 1
        if size > self.max_batch and self.can_batch:
            raise RequestError(
                Reason.INVALID, f"a request may have a batch of {self.max_batch} at most, got one of {size}"
            )
        work = Work(feed, size, deadline)
        with self._changed:
            if self._closed:
                raise RequestError(Reason.UNAVAILABLE, "the model is being unloaded")
            if len(self._queue) >= self._queue_limit:
                self._drop_dead()
            if len(self._queue) >= self._queue_limit:
                raise RequestError(Reason.QUEUE_FULL, f"{self._queue_limit} requests are waiting already: try later")
            self._queue.append(work)
            self._changed.notify_all()
        return work

    def close(self, timeout: float) -> bool:
        """Take nothing more, finish what is accepted, and close the session.

        A run cannot be broken off. Where one goes on for so many seconds, what waits is refused, the session is left
        open, since it is in use, and the result is False.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        end = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0.0))
        if any(thread.is_alive() for thread in self._threads):
            self._give_up()
            return False
        self.session.close()
        return True

    def _give_up(self) -> None:
        with self._changed:
            for work in self._queue:
                work.fail(Reason.UNAVAILABLE, "the model is being unloaded, and hangs")
            self._queue.clear()
        log.error("a model hangs, and is left open", extra={"model": self._labels[0], "model_version": self._labels[1]})

    def _waiting(self) -> int:
        return len(self._queue)

    def _serve(self) -> None:
        while True:
            batch = self._next()
            if batch is None:
                return
            claimed = [work for work in batch if work.future.set_running_or_notify_cancel()]
            if claimed:
                begins = time.monotonic()
                for work in claimed:
                    self._queue_seconds.observe(begins - work.accepted)
                self._run(claimed)

    def _next(self) -> list[Work] | None:
        """The oldest request and those that may run with it; None where nothing will come any more."""
        with self._changed:
            while True:
                self._drop_dead()
                if not self._queue:
                    if self._closed:
                        return None
                    self._changed.wait()
                    continue
                first = self._queue[0]
                batch = self._batch_of(first)
                full = sum(work.size for work in batch) >= self.max_batch
                wait = first.accepted + self._max_delay - time.monotonic()
                if full or wait <= 0 or self._closed or not self.can_batch:
                    for work in batch:
                        self._queue.remove(work)
                    return batch
                self._changed.wait(wait)

    def _batch_of(self, first: Work) -> list[Work]:
        batch, size = [first], first.size
        for work in self._queue:
            if work is not first and work.kind == first.kind and size + work.size <= self.max_batch:
                batch.append(work)
                size += work.size
        return batch

    def _drop_dead(self) -> None:
        """Without those whose client is gone, and with an answer for those whose time is over."""
        now = time.monotonic()
        for work in [work for work in self._queue if work.future.done() or work.deadline <= now]:
            self._queue.remove(work)
            work.fail(Reason.DEADLINE, "the request's time was over before its turn came")

    def _run(self, batch: Sequence[Work]) -> None:
        started = time.monotonic()
        try:
            outputs = self.session.run(**self._joined(batch))
            parts = self._parts(batch, outputs)
        except Exception as error:  # whatever a backend raises: a request without an answer would wait for ever
            self._fail(batch, error)
            return
        finally:
            self._compute_seconds.observe(time.monotonic() - started)
            self._batch_size.observe(sum(work.size for work in batch))
        for work, own in zip(batch, parts, strict=True):
            work.future.set_result(own)

    def _fail(self, batch: Sequence[Work], error: Exception) -> None:
        """One request's data may be why a run fails: the others get their answers from runs of their own."""
        if len(batch) > 1:
            for work in batch:
                self._run([work])
        else:
            words = one_line(error) if isinstance(error, DibrError) else f"the model failed: {type(error).__name__}"
            batch[0].fail(Reason.FAILED, words)

    def _joined(self, batch: Sequence[Work]) -> dict[str, np.ndarray]:
        return join([work.feed for work in batch], frozenset(batch[0].feed))

    def _parts(self, batch: Sequence[Work], outputs: Arrays) -> list[Arrays]:
        """Each request's outputs."""
        if len(batch) == 1:
            return [outputs]
        total = sum(work.size for work in batch)
        batched = self._batched or frozenset()
        for name in batched:
            if len(outputs[name]) != total:
                raise DibrError(f"output {name} has a batch of {len(outputs[name])} for inputs of {total}")
        parts: list[Arrays] = []
        start = 0
        for work in batch:
            parts.append(part(outputs, start, start + work.size, batched))
            start += work.size
        return parts
