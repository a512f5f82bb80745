"""What an engine takes of LoRA adapters: a request's arrays become parts of the graph's linears."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from builder.errors import RequestError
from builder.limits import DTYPE_BYTES
from builder.lora import Place, places
from builder.targets.tensorrt_llm.flags import LORA_MODULES

Array = NDArray[Any]

_NAMES = {number: name for name, number in LORA_MODULES.items()}
_SERIALS = count(1)


@dataclass(frozen=True, kw_only=True)
class Part:
    """What an adapter adds to the outputs from `offset` of one linear."""

    into: Array
    """float16 [rank, in]"""
    out: Array
    """float16 [out, rank]"""
    offset: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Adapter:
    """An adapter: `parts` by the linear (`attention.qkv`, …), then by the layer.

    `serial` is its own, also where a task id is forgotten and comes again with other weights.
    """

    task_id: int
    serial: int
    parts: Mapping[str, Mapping[int, tuple[Part, ...]]]
    nbytes: int

    def columns(self, linear: str) -> int:
        """How many columns it needs in that linear, in the layer that needs most."""
        layers = self.parts.get(linear, {}).values()
        return max((sum(len(part.into) for part in parts) for parts in layers), default=0)


class AdapterForm:
    """What an engine takes of adapters: its modules, their sizes and the largest rank."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        model, build = config["pretrained_config"], config["build_config"]
        self.enabled = bool((build.get("plugin_config") or {}).get("lora_plugin"))
        lora = (build.get("lora_config") or {}) if self.enabled else {}
        self.max_rank = int(lora.get("max_lora_rank") or 0)
        self._layers = int(model["num_hidden_layers"])
        self._number_bytes = DTYPE_BYTES[model["dtype"]]
        modules = lora.get("lora_target_modules") or ()
        self._places = {
            (place.module, place.layer): place
            for place in (places(model) if self.enabled else ())
            if place.module in modules
        }
        self._modules = sorted(modules)

    def require_lora(self) -> None:
        """Raise RequestError for an engine without adapters."""
        if not self.enabled:
            raise RequestError(
                "the engine takes no LoRA adapters",
                do="build it with --lora or --max-lora-rank",
                param="lora_task_id",
            )

    def size_bytes(self, rank: int) -> int:
        """What an adapter takes that changes all it can with this rank."""
        numbers = sum(
            sum(place.sizes)
            for (module, layer), place in self._places.items()
            # a projection of all three is adapted as one or as three
            if module != "attn_qkv" or ("attn_q", layer) not in self._places
        )
        return numbers * rank * self._number_bytes

    def adapter(self, task_id: int, weights: Array, config: Array) -> Adapter:
        """The adapter in a request's arrays. Raises RequestError, naming the row's fault."""
        weights, config = _rows(weights, "lora_weights"), _rows(config, "lora_config")
        if len(weights) != len(config) or len(config) == 0 or config.shape[1] not in (3, 4):
            raise RequestError(
                "lora_weights and lora_config must have as many rows, of 3 or 4 numbers in the "
                "latter",
                found=f"shapes {list(weights.shape)} and {list(config.shape)}",
                param="lora_config",
            )
        if weights.dtype.kind != "f" or not np.isfinite(weights).all():
            raise RequestError("lora_weights must be finite numbers", param="lora_weights")
        parts: dict[str, dict[int, tuple[Part, ...]]] = {}
        for place, part in self._parts(weights, config.tolist()):
            layers = parts.setdefault(place.linear, {})
            layers[place.layer] = (*layers.get(place.layer, ()), part)
        stored = [part for layers in parts.values() for own in layers.values() for part in own]
        numbers = sum(part.into.size + part.out.size for part in stored)
        return Adapter(
            task_id=task_id,
            serial=next(_SERIALS),
            parts=parts,
            nbytes=numbers * self._number_bytes,
        )

    def _parts(self, weights: Array, rows: Iterable[list[int]]) -> Iterator[tuple[Place, Part]]:
        for values, (module, layer, rank, *dora) in zip(weights, rows, strict=True):
            place = self._place(module, layer, rank, dora)
            into, out = (size * rank for size in place.sizes)
            if into + out > len(values):
                raise RequestError(
                    f"lora_weights has too few values for {place.module} of layer {layer}",
                    found=f"{len(values)} where rank {rank} takes {into + out}",
                    param="lora_weights",
                )
            # copies: the request's own memory is Triton's
            yield (
                place,
                Part(
                    into=values[:into].reshape(rank, -1).astype(np.float16),
                    out=values[into : into + out].reshape(-1, rank).astype(np.float16),
                    offset=place.offset,
                ),
            )

    def _place(self, module: int, layer: int, rank: int, dora: list[int]) -> Place:
        name = _NAMES.get(module, f"with id {module}")
        if not 0 <= layer < self._layers:
            _refuse(f"layers lie between 0 and {self._layers - 1}", f"layer {layer}")
        if not 1 <= rank <= self.max_rank:
            _refuse(
                f"ranks lie between 1 and the engine's max_lora_rank {self.max_rank}", str(rank)
            )
        if any(dora):
            _refuse("DoRA is not supported by the CPU engine", f"a DoRA row for {name}")
        place = self._places.get((name, layer))
        if place is None:
            _refuse(
                f"the engine takes no adapter of the module {name} in layer {layer}",
                f"its lora_target_modules are {', '.join(self._modules)}",
            )
        return place


def _refuse(what: str, found: str) -> NoReturn:
    raise RequestError(what, found=found, param="lora_config")


def _rows(values: Array, name: str) -> Array:
    """Without the batch dimension that Triton and upstream's files have."""
    values = values[0] if values.ndim == 3 and len(values) == 1 else values
    if values.ndim != 2:
        raise RequestError(
            f"{name} must have rows", found=f"shape {list(values.shape)}", param=name
        )
    return values
