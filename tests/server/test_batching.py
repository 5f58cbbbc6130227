"""The queue of a model: what runs together, what waits, what is refused, and that each request is answered once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from dibr_deploy.runtime.server.batching import Batcher, Work
from dibr_deploy.runtime.server.errors import Reason, RequestError
from dibr_deploy.runtime.server.metrics import Metrics
from server.gated import POISON, GatedSession


def batcher(session: GatedSession, **options: Any) -> Batcher:
    chosen: dict[str, Any] = {"instances": 1, "max_batch": 4, "max_delay": 0.0, "queue_limit": 100, **options}
    chosen.setdefault("metrics", Metrics())
    return Batcher(session, labels=("gated", "1"), **chosen)  # type: ignore[arg-type]


def payload(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array([[value, -value] for value in values], np.float32)}


def submit(queue: Batcher, *values: float, seconds: float = 60.0) -> Work:
    return queue.submit(payload(*values), time.monotonic() + seconds)


def answer(work: Work) -> list[float]:
    return work.future.result(60)["y"][:, 0].tolist()


def held(queue: Batcher, session: GatedSession) -> Work:
    """A request that occupies the model until the gate opens."""
    session.gate.clear()
    work = submit(queue, 1000.0)
    assert session.begun.acquire(timeout=60)
    return work


def test_what_waits_runs_together_and_everyone_gets_their_own_part() -> None:
    session = GatedSession()
    queue = batcher(session)
    first = held(queue, session)
    waiting = [submit(queue, 1.0), submit(queue, 2.0, 3.0), submit(queue, 4.0), submit(queue, 5.0)]
    session.gate.set()
    assert [answer(work) for work in (first, *waiting)] == [[2000], [2], [4, 6], [8], [10]]
    assert session.batches == [1, 4, 1]
    assert all(work.future.result()["constant"].tolist() == [0, 1, 2] for work in waiting)
    queue.close(60.0)
    assert session.closed


def test_a_request_waits_for_others_at_most_max_delay() -> None:
    session = GatedSession()
    queue = batcher(session, max_delay=3600.0, max_batch=3)
    works = [submit(queue, float(number)) for number in range(3)]
    assert [answer(work) for work in works] == [[0], [2], [4]]  # a full batch does not wait
    assert session.batches == [3]
    alone = submit(queue, 7.0)
    queue.close(60.0)  # nor does anything at the end
    assert answer(alone) == [14]
    quick = batcher(GatedSession(), max_delay=0.01)
    assert answer(submit(quick, 1.0)) == [2]
    quick.close(60.0)


def test_without_batching_every_request_runs_alone() -> None:
    session = GatedSession()
    queue = batcher(session, max_batch=1)
    held(queue, session)
    works = [submit(queue, float(number)) for number in range(3)]
    session.gate.set()
    assert [answer(work) for work in works] == [[0], [2], [4]]
    assert session.batches == [1, 1, 1, 1]
    queue.close(60.0)


def test_a_failing_request_does_not_fail_the_others() -> None:
    session, metrics = GatedSession(), Metrics()
    queue = batcher(session, metrics=metrics)
    held(queue, session)
    works = [submit(queue, 1.0), submit(queue, POISON), submit(queue, 2.0)]
    session.gate.set()
    assert [answer(works[0]), answer(works[2])] == [[2], [4]]
    with pytest.raises(RequestError, match="poison") as raised:
        answer(works[1])
    assert raised.value.reason is Reason.FAILED
    queue.close(60.0)
    text = metrics.text().decode()
    assert 'dibr_queue_seconds_count{model="gated",version="1"} 4.0' in text  # each has waited once
    assert 'dibr_compute_seconds_count{model="gated",version="1"} 5.0' in text


def test_a_full_queue_refuses() -> None:
    session = GatedSession()
    queue = batcher(session, queue_limit=2)
    held(queue, session)
    works = [submit(queue, 1.0), submit(queue, 2.0)]
    with pytest.raises(RequestError, match="2 requests are waiting already") as raised:
        submit(queue, 3.0)
    assert raised.value.reason is Reason.QUEUE_FULL
    works[0].future.cancel()  # its client is gone: there is room
    works.append(submit(queue, 4.0))
    session.gate.set()
    assert [answer(work) for work in works[1:]] == [[4], [8]]
    with pytest.raises(CancelledError):
        answer(works[0])
    queue.close(60.0)


def test_the_queue_bounds_how_long_a_request_waits() -> None:
    """However many come: what is let in runs after the one that runs and the others that wait, in their order."""
    limit, order = 3, []

    class Ordered(GatedSession):
        steps = threading.Semaphore(0)

        def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
            self.begun.release()
            assert self.steps.acquire(timeout=60)
            order.append(x[0, 0])
            return {"y": 2 * x, "constant": np.arange(3, dtype=np.float32)}

    session = Ordered()
    queue = batcher(session, queue_limit=limit, max_batch=1)
    accepted: list[tuple[float, int]] = []
    """Values, and how many had run when they were let in."""
    for number in range(200):
        try:
            work = submit(queue, float(number))
        except RequestError:
            session.steps.release()
            assert session.begun.acquire(timeout=60)  # the next has left the queue
        else:
            accepted.append((number, len(order)))
            if number == 0:
                assert session.begun.acquire(timeout=60)
    for _ in range(limit + 1):
        session.steps.release()
    answer(work)
    queue.close(60.0)
    assert order == [number for number, _ in accepted]
    assert max(place - before for place, (_, before) in enumerate(accepted)) == limit
    assert len(accepted) >= 100


def test_time_that_is_over() -> None:
    session = GatedSession()
    queue = batcher(session)
    held(queue, session)
    late = submit(queue, 1.0, seconds=0.0)
    in_time = submit(queue, 2.0)
    session.gate.set()
    assert answer(in_time) == [4]
    with pytest.raises(RequestError) as raised:
        answer(late)
    assert raised.value.reason is Reason.DEADLINE
    assert session.batches == [1, 1]  # the late one never ran
    queue.close(60.0)


def test_too_large_a_batch_and_a_closed_queue() -> None:
    session = GatedSession()
    queue = batcher(session)
    with pytest.raises(RequestError, match="batch of 4 at most, got one of 5") as raised:
        submit(queue, *range(5))
    assert raised.value.reason is Reason.INVALID
    queue.close(60.0)
    with pytest.raises(RequestError) as raised:
        submit(queue, 1.0)
    assert raised.value.reason is Reason.UNAVAILABLE


def test_a_run_that_does_not_end() -> None:
    """The queue is closed all the same: what waits is refused, and the session, which is in use, is left open."""
    session = GatedSession()
    queue = batcher(session)
    running = held(queue, session)
    waiting = submit(queue, 1.0)
    assert queue.close(0.05) is False
    assert not session.closed and not running.future.done()
    with pytest.raises(RequestError, match="hangs") as raised:
        answer(waiting)
    assert raised.value.reason is Reason.UNAVAILABLE
    session.gate.set()
    assert answer(running) == [2000]
    assert queue.close(60.0) is True
    assert session.closed


def test_none_lost_and_none_answered_twice() -> None:
    """Many threads with payloads of their own, two instances, a short queue, clients that give up, poison.

    Who finds the queue full asks again."""
    session = GatedSession()
    queue = batcher(session, instances=2, queue_limit=8, max_batch=5)
    counts = {"answered": 0, "failed": 0, "cancelled": 0}
    lock = threading.Lock()

    def taken(value: float) -> Work:
        while True:
            try:
                return submit(queue, value)
            except RequestError as error:
                if error.reason is not Reason.QUEUE_FULL:
                    raise
                time.sleep(0.001)

    def request(number: int) -> None:
        kind = "answered"
        value = POISON if number % 50 == 7 else float(number)
        work = taken(value)
        if number % 31 == 3:
            work.future.cancel()
        try:
            assert answer(work) == [2 * value]
        except CancelledError:
            kind = "cancelled"
        except RequestError as error:
            kind = {(Reason.FAILED, POISON): "failed"}[error.reason, value]
        with lock:
            counts[kind] += 1

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(request, range(2000)))
    queue.close(60.0)
    assert sum(counts.values()) == 2000
    assert 0 < counts["failed"] <= 40
    assert counts["cancelled"] <= 65
