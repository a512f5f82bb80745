"""The adapters of a step as inputs of the graph (`builder.targets.openvino_lora` has their form).

The graph sees the columns of all adapters side by side. They lie in buffers that it reads in place:
an adapter is written there once, when it comes, and a step only says which columns its tokens have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from triton_repo.executor.adapters import Adapter
from triton_repo.executor.scheduler import Chunk

Matrix = NDArray[np.float32]

_NAME = re.compile(r"lora\.(\d+)\.(.+)\.a")
_Tokens = Sequence[tuple[Adapter | None, int]]
"""Who owns so many tokens, in the step's order."""


class LoraInputs:
    """The inputs for adapters of an infer request, of whose model they may be absent.

    The request is the only one of its model to run, and not while `of` does.
    """

    def __init__(self, request: ov.InferRequest) -> None:
        compiled = request.get_compiled_model()
        ports = {name: port for port in compiled.inputs for name in port.names}
        layers: dict[str, list[int]] = {}
        for name in ports:
            if match := _NAME.fullmatch(name):
                layers.setdefault(match[2], []).append(int(match[1]))
        self._columns = [
            _Columns(linear, request, {layer: _ports(ports, layer, linear) for layer in numbers})
            for linear, numbers in layers.items()
        ]
        self._last: list[Any] = []
        self._masks: dict[str, Matrix] = {}

    def of(self, chunks: Sequence[Chunk]) -> Mapping[str, Matrix]:
        """The masks for a step by the name of their input; empty for a model without adapters.

        The other inputs, the adapters' weights, are set here, and are good for this step only.
        """
        if not self._columns:
            return {}
        tokens = [(c.sequence.request.adapter, c.end - c.sequence.computed) for c in chunks]
        # weakly: an adapter is free to go when its requests are over
        step = [(owner and ref(owner), count) for owner, count in tokens]
        if step != self._last or not self._masks:
            adapters = list(dict.fromkeys(owner for owner, _ in tokens if owner is not None))
            self._masks = {
                each.mask_name: each.mask(tokens, each.place(adapters)) for each in self._columns
            }
            self._last = step
        return self._masks


def _ports(ports: Mapping[str, Any], layer: int, linear: str) -> tuple[Any, Any]:
    return ports[f"lora.{layer}.{linear}.a"], ports[f"lora.{layer}.{linear}.b"]


class _Columns:
    """The columns of one linear, in all layers alike: which adapter has which."""

    def __init__(
        self, linear: str, request: ov.InferRequest, ports: Mapping[int, tuple[Any, Any]]
    ) -> None:
        self.mask_name = f"lora.{linear}.mask"
        self._linear, self._request, self._ports = linear, request, ports
        self._owned: WeakKeyDictionary[Adapter, range] = WeakKeyDictionary()
        self._free = 0
        """The first column that nobody has had."""
        self._shown = 0
        """How many columns the graph sees."""
        self._allocate(0)

    def place(self, adapters: Iterable[Adapter]) -> Mapping[Adapter, range]:
        """Have these adapters' columns in the buffers, and show the graph no more than it needs."""
        wanted = [adapter for adapter in adapters if adapter.columns(self._linear)]
        new = [adapter for adapter in wanted if adapter not in self._owned]
        if self._free + _sum(self._linear, new) > self._capacity:
            # others may still lie here whose requests wait or are over; they come again if need be
            self._owned.clear()
            self._free, new = 0, wanted
            if (needed := _sum(self._linear, wanted)) > self._capacity:
                self._allocate(1 << (needed - 1).bit_length())
        for adapter in new:
            self._write(adapter)
        owned = {adapter: self._owned[adapter] for adapter in wanted}
        self._show(max((columns.stop for columns in owned.values()), default=0))
        return owned

    def mask(self, tokens: _Tokens, owned: Mapping[Adapter, range]) -> Matrix:
        """float32 [T, 1, R]: 1 where the token's adapter has the column."""
        mask = np.zeros((sum(count for _, count in tokens), 1, self._shown), np.float32)
        begin = 0
        for adapter, count in tokens:
            if adapter is not None and adapter in owned:
                columns = owned[adapter]
                mask[begin : begin + count, :, columns.start : columns.stop] = 1
            begin += count
        return mask

    def _allocate(self, capacity: int) -> None:
        """Give the graph new buffers, of as many columns, none of which it sees yet."""
        self._capacity, self._shown = capacity, 0
        self._buffers: dict[int, tuple[Matrix, Matrix]] = {}
        self._tensors: list[tuple[ov.Tensor, int]] = []
        for layer, pair in self._ports.items():
            widths = [int(port.partial_shape[1].get_length()) for port in pair]
            into, out = (np.zeros((max(capacity, 1), width), np.float32) for width in widths)
            self._buffers[layer] = into, out
            for port, buffer in zip(pair, (into, out), strict=True):
                # a view of the buffer: its shape can shrink and grow again
                tensor = ov.Tensor(buffer, shared_memory=True)
                tensor.shape = [0, buffer.shape[1]]
                self._request.set_tensor(port, tensor)
                self._tensors.append((tensor, buffer.shape[1]))

    def _show(self, columns: int) -> None:
        if columns != self._shown:
            for tensor, width in self._tensors:
                tensor.shape = [columns, width]
            self._shown = columns

    def _write(self, adapter: Adapter) -> None:
        begin, end = self._free, self._free + adapter.columns(self._linear)
        for layer, (into, out) in self._buffers.items():
            into[begin:end] = out[begin:end] = 0
            at = begin
            for part in adapter.parts[self._linear].get(layer, ()):
                rows = slice(at, at := at + len(part.into))
                into[rows] = part.into
                out[rows, part.offset : part.offset + len(part.out)] = part.out.T
        self._owned[adapter], self._free = range(begin, end), end


def _sum(linear: str, adapters: Iterable[Adapter]) -> int:
    return sum(adapter.columns(linear) for adapter in adapters)
