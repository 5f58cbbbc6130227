"""CUDA graphs of one stream: work that repeats is recorded once and launched as a whole from then on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import NamedTuple

from dibr_deploy.errors import DibrError

from .cuda import CudaDevice

MAX_GRAPHS = 16
"""Kept by one stream; the one that was not used for longest goes first."""


class GraphKey(NamedTuple):
    """What must be the same for a graph to do the same work."""

    shapes: Hashable
    """Of the inputs, and the values of shape inputs."""
    addresses: tuple[int, ...]
    """Of inputs and outputs on the device."""


class CudaGraphs:
    """The graphs of one stream. A key's first run is an ordinary one, its second is recorded, later ones replay.

    Work that cannot be recorded always runs the ordinary way.
    """

    def __init__(self, device: CudaDevice, stream: int) -> None:
        self._device = device
        self._stream = stream
        self._graphs: OrderedDict[GraphKey, int | None] = OrderedDict()
        """None where a key has run once, the ordinary way."""
        self._not_recordable: set[Hashable] = set()
        """Shapes: whether work can be recorded does not depend on addresses."""

    def run(self, key: GraphKey, work: Callable[[], None], *, may_replay: bool) -> None:
        """Enqueue the work, or launch the graph of it.

        work: enqueues on the stream; raises where it cannot.
        may_replay: False asks for an ordinary run.
        """
        graph = self._graphs.get(key)
        if graph is None and may_replay and key in self._graphs and key.shapes not in self._not_recordable:
            graph = self._graphs[key] = self._recorded(work)
            if graph is None:
                self._not_recordable.add(key.shapes)
        if graph is not None and may_replay:
            self._device.launch_graph(graph, self._stream)
        else:
            work()
        self._graphs[key] = graph
        self._graphs.move_to_end(key)
        if len(self._graphs) > MAX_GRAPHS:
            self._destroy(next(iter(self._graphs)))

    def _recorded(self, work: Callable[[], None]) -> int | None:
        """A graph of the work, which does not run; None where it cannot be recorded, whose reason is no error."""
        try:
            self._device.begin_capture(self._stream)
        except DibrError:
            return None
        succeeded = False
        try:
            with suppress(DibrError):
                work()
                succeeded = True
        finally:
            graph = None
            with suppress(DibrError):
                graph = self._device.end_capture(self._stream)
        if graph is not None and not succeeded:
            self._device.destroy_graph(graph)
            return None
        return graph

    def forget(self, address: int) -> None:
        """Drop every graph that reads or writes at an address, because what is there is given back."""
        for key in [key for key in self._graphs if address in key.addresses]:
            self._destroy(key)

    def clear(self) -> None:
        for key in list(self._graphs):
            self._destroy(key)

    def _destroy(self, key: GraphKey) -> None:
        graph = self._graphs.pop(key)
        if graph is not None:
            self._device.destroy_graph(graph)
