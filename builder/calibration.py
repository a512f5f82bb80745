"""What a calibration found of a model: all that turns its weights into quantized ones.

It is small, so it can be kept: from it and the model a checkpoint is written for any layout
without calibrating again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from builder import safetensors_file
from builder.dtypes import SAFETENSORS_CODE_OF, Array, raw
from builder.errors import ArtifactError, CorruptFileError
from builder.source.hf_quantization import Format

_VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearCalibration:
    """What was found of one linear layer; arrays are float32. `in` are its inputs.

    `weight_amax` [] is the largest magnitude of all weights, where one scale is over all of them:
    FP8 and NVFP4. `input_amax` [] is that of the inputs, after `pre_quant_scale` [in], what they
    are multiplied with; `smoothing` [in] is what the weights were multiplied with in return.
    """

    format: Format
    group_size: int = 0
    weight_amax: Array | None = None
    input_amax: Array | None = None
    pre_quant_scale: Array | None = None
    smoothing: Array | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """`linears` by the names of their modules; `kv_amax` by layer: the largest key and value.

    `dtype` is that of the weights while it was calibrated: scales are rounded to it. `kv_cache`
    is "FP8", "INT8" or None.
    """

    dtype: str
    linears: Mapping[str, LinearCalibration]
    kv_cache: str | None = None
    kv_amax: Mapping[int, tuple[float, float]] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it as a safetensors file, whole or not at all."""
        arrays = dict(self._arrays())
        formats = {
            name: [linear.format.name, linear.group_size] for name, linear in self.linears.items()
        }
        about = {
            "version": _VERSION,
            "dtype": self.dtype,
            "kv_cache": self.kv_cache,
            "kv_amax": {str(layer): pair for layer, pair in self.kv_amax.items()},
            "formats": formats,
        }
        partial = path.with_name(f".{path.name}.partial")
        partial.write_bytes(_file(arrays, about))
        partial.replace(path)

    def _arrays(self) -> Iterator[tuple[str, Array]]:
        for name, linear in self.linears.items():
            for each in _ARRAYS:
                if (array := getattr(linear, each)) is not None:
                    yield f"{name}.{each}", np.asarray(array, np.float32)

    @staticmethod
    def load(path: Path) -> Calibration:
        """Read what `save` wrote. Raises ArtifactError for anything else."""
        do = "calibrate again"
        try:
            tensors = safetensors_file.read(path)
            about = _about(path)
            return Calibration(
                dtype=about["dtype"],
                linears={
                    name: LinearCalibration(
                        format=Format[kind],
                        group_size=group_size,
                        **{
                            each: tensors[key].numpy()
                            for each in _ARRAYS
                            if (key := f"{name}.{each}") in tensors
                        },
                    )
                    for name, (kind, group_size) in about["formats"].items()
                },
                kv_cache=about["kv_cache"],
                kv_amax={int(layer): (k, v) for layer, (k, v) in about["kv_amax"].items()},
            )
        except CorruptFileError as error:
            raise ArtifactError(error.what, found=error.found, do=do) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(
                f"{path} is not a calibration that was kept", found=str(error), do=do
            ) from error


_ARRAYS = [
    each.name for each in fields(LinearCalibration) if each.name not in ("format", "group_size")
]


def _file(arrays: Mapping[str, Array], about: Mapping[str, Any]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"calibration": json.dumps(about)}}
    position = 0
    for name, array in arrays.items():
        end = position + array.nbytes
        header[name] = {
            "dtype": SAFETENSORS_CODE_OF["float32"],
            "shape": list(array.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    contents = [bytes(raw(np.ascontiguousarray(array))) for array in arrays.values()]
    return b"".join([len(text).to_bytes(8, "little"), text, *contents])


def _about(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        about = json.loads(json.loads(file.read(length))["__metadata__"]["calibration"])
    if about["version"] != _VERSION:
        raise ValueError(f"version {about['version']}")
    return dict(about)
