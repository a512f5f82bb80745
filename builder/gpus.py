"""Which GPU is which: generation, memory, bandwidth and arithmetic, as data, found by any name.

Sources: NVIDIA's datasheets and architecture whitepapers, named in each row; NVIDIA's list of CUDA
compute capabilities. Arithmetic is dense, with FP32 accumulation where a card has it at half rate
(GeForce): datasheets print twice that with structured sparsity, which language models don't use.
Memory is what the driver shows (`nvidia-smi`), which is not the round number on the box.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from builder.errors import LimitError

PCIE3, PCIE4, PCIE5 = 16.0, 32.0, 64.0
"""16 lanes, GB/s in each direction."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU; None is what NVIDIA doesn't publish or the GPU doesn't have.

    `sm` is the compute capability (89 for 8.9). Bandwidths are decimal GB/s: of the memory, and to
    its neighbours in each direction (NVLink, else PCIe). The FLOP/s of `fp4` are NVFP4's.
    """

    name: str
    sm: int
    memory_gib: float | None = None
    bandwidth_gb_s: float | None = None
    fp16_tflops: float | None = None
    int8_tops: float | None = None
    fp8_tflops: float | None = None
    fp4_tflops: float | None = None
    link_gb_s: float | None = None
    source: str

    @property
    def memory_bytes(self) -> int | None:
        """All of its memory, in bytes."""
        return None if self.memory_gib is None else int(self.memory_gib * (1 << 30))


_Row = tuple[
    str, int, int, float, float, "float | None", "float | None", "float | None", float, str
]
_ROWS: tuple[_Row, ...] = (
    # name, SM, MiB, GB/s, FP16 TFLOPS, INT8 TOPS, FP8 TFLOPS, FP4 TFLOPS, link GB/s, source
    ("V100-32GB", 70, 32510, 900, 125, None, None, None, 150, "V100 datasheet (SXM2)"),
    ("V100-16GB", 70, 16160, 900, 125, None, None, None, 150, "V100 datasheet (SXM2)"),
    ("T4", 75, 15360, 320, 65, 130, None, None, PCIE3, "T4 datasheet"),
    ("A100-80GB", 80, 81920, 2039, 312, 624, None, None, 300, "A100 datasheet (SXM)"),
    ("A100-40GB", 80, 40960, 1555, 312, 624, None, None, 300, "A100 datasheet (SXM)"),
    ("A100-PCIe-80GB", 80, 81920, 1935, 312, 624, None, None, PCIE4, "A100 datasheet (PCIe)"),
    ("A100-PCIe-40GB", 80, 40960, 1555, 312, 624, None, None, PCIE4, "A100 datasheet (PCIe)"),
    ("A800-80GB", 80, 81920, 2039, 312, 624, None, None, 200, "A800 datasheet (SXM)"),
    ("A30", 80, 24576, 933, 165, 330, None, None, PCIE4, "A30 datasheet"),
    ("A2", 86, 15356, 200, 18, 36, None, None, 16, "A2 datasheet"),
    ("A10", 86, 23028, 600, 125, 250, None, None, PCIE4, "A10 datasheet"),
    ("A10G", 86, 23028, 600, 70, 140, None, None, PCIE4, "A10G datasheet"),
    ("A16", 86, 15356, 200, 17.9, 35.9, None, None, PCIE4, "A16 datasheet (one of its four)"),
    ("A40", 86, 46068, 696, 149.7, 299.3, None, None, PCIE4, "A40 datasheet"),
    ("RTX A6000", 86, 49140, 768, 154.8, 309.7, None, None, PCIE4, "GA102 whitepaper"),
    ("RTX 3090", 86, 24576, 936, 71, 284, None, None, PCIE4, "GA102 whitepaper"),
    ("L4", 89, 23034, 300, 121, 242.5, 242.5, None, PCIE4, "L4 datasheet"),
    ("L20", 89, 46068, 864, 119.5, 239, 239, None, PCIE4, "L20 datasheet"),
    ("L40", 89, 46068, 864, 181, 362, 362, None, PCIE4, "L40 datasheet"),
    ("L40S", 89, 46068, 864, 362, 733, 733, None, PCIE4, "L40S datasheet"),
    ("RTX 6000 Ada", 89, 49140, 960, 364.2, 728.5, 728.5, None, PCIE4, "RTX 6000 Ada datasheet"),
    ("RTX 4090", 89, 24564, 1008, 165.2, 660.6, 330.3, None, PCIE4, "Ada whitepaper"),
    ("RTX 4080", 89, 16376, 716.8, 97.5, 389.9, 194.9, None, PCIE4, "Ada whitepaper"),
    ("H20", 90, 97871, 4000, 148, 296, 296, None, 450, "H20 datasheet"),
    ("H100-80GB", 90, 81559, 3350, 989.4, 1978.9, 1978.9, None, 450, "H100 datasheet (SXM)"),
    ("H100-PCIe-80GB", 90, 81559, 2000, 756.5, 1513, 1513, None, PCIE5, "H100 datasheet (PCIe)"),
    ("H100-NVL-94GB", 90, 95830, 3900, 835.5, 1670.5, 1670.5, None, 300, "H100 datasheet (NVL)"),
    ("H200-141GB", 90, 143771, 4800, 989.4, 1978.9, 1978.9, None, 450, "H200 datasheet (SXM)"),
    ("H200-NVL-141GB", 90, 143771, 4800, 835.5, 1670.5, 1670.5, None, 450, "H200 datasheet (NVL)"),
    ("H800-80GB", 90, 81559, 3350, 989.4, 1978.9, 1978.9, None, 200, "H800 datasheet (SXM)"),
    ("GH200-480GB", 90, 97871, 4000, 989.4, 1978.9, 1978.9, None, 450, "GH200 datasheet (HBM3)"),
    ("GH200-144GB", 90, 145920, 4900, 989.4, 1978.9, 1978.9, None, 450, "GH200 datasheet (HBM3e)"),
    ("B200", 100, 183359, 8000, 2250, 4500, 4500, 9000, 900, "HGX B200 datasheet"),
    ("GB200", 100, 189471, 8000, 2500, 5000, 5000, 10000, 900, "GB200 NVL72 datasheet"),
    ("B300", 103, 275040, 8000, 2250, None, 4500, 13500, 900, "HGX B300 datasheet"),
    ("GB300", 103, 284208, 8000, 2500, None, 5000, 15000, 900, "GB300 NVL72 datasheet"),
    ("RTX 5090", 120, 32607, 1792, 209.5, 838, 419, 1676, PCIE5, "RTX Blackwell whitepaper"),
    ("RTX 5080", 120, 16303, 960, 112.6, 450.2, 225.1, 900.4, PCIE5, "RTX Blackwell whitepaper"),
    ("RTX PRO 6000", 120, 97887, 1792, 503.8, 1007.6, 1007.6, 2015.2, PCIE5,
     "RTX PRO Blackwell whitepaper (Workstation Edition)"),
    ("RTX PRO 6000 Max-Q", 120, 97887, 1792, 438.9, 877.9, 877.9, 1755.7, PCIE5,
     "RTX PRO Blackwell whitepaper (Max-Q Workstation Edition)"),
    ("RTX PRO 6000 Server", 120, 97887, 1597, 467, 934, 934, 1868, PCIE5,
     "RTX PRO 6000 Blackwell Server Edition datasheet"),
)  # fmt: skip

GPUS: Mapping[str, Gpu] = {
    name: Gpu(
        name=name,
        sm=capability,
        memory_gib=mib / 1024,
        bandwidth_gb_s=bandwidth,
        fp16_tflops=fp16,
        int8_tops=int8,
        fp8_tflops=fp8,
        fp4_tflops=fp4,
        link_gb_s=link,
        source=f"NVIDIA, {source}",
    )
    for name, capability, mib, bandwidth, fp16, int8, fp8, fp4, link, source in _ROWS
}
"""Name → GPU. Of those that differ in memory or form, the first is meant by the bare name."""

FAMILIES: Mapping[str, int] = {
    "RTX 20#0": 75,
    "RTX 30#0": 86,
    "RTX A#000": 86,
    "RTX A#500": 86,
    "Orin": 87,
    "RTX 40#0": 89,
    "RTX #000 Ada": 89,
    "RTX #500 Ada": 89,
    "L2": 89,
    "B100": 100,
    "Thor": 110,
    "RTX 50#0": 120,
    "RTX PRO #000": 120,
    "RTX PRO #500": 120,
    "DGX Spark": 121,
    "GB10": 121,
}
"""Those of which only the compute capability is kept here. `#` is a digit from 1 to 9."""

_NOISE = re.compile(
    r"nvidia|geforce|tesla|quadro|jetson|rtx|dgx|generation|workstation|edition|blackwell"
    r"|\bgpu|hbm\w*|[-_\s]"
)
_SIZE = re.compile(r"(?<![a-z\d])(\d+) ?gb?\b")
_FORM = re.compile(r"sxm|pcie|nvl")
_MODEL_END = re.compile(r"(?<![a-z\d])\d+ ?gb?\b.*|[-_ ](?:sxm|pcie|nvl).*")
_SM = re.compile(r"(?:sm|compute)?(\d{2,3})[af]?")


def find(name: str) -> Gpu:
    """The GPU of a name that people or drivers give it ("H100", "NVIDIA A100-SXM4-40GB", "sm89").

    Only `sm` is known of a compute capability and of cards that GPUS hasn't. Raises LimitError for
    a name that is neither.
    """
    model = _model(name)
    same = [gpu for key, gpu in GPUS.items() if _model(key) == model]
    if size := _SIZE.search(name.lower()):
        same = [gpu for gpu in same if _has(gpu, size[1])]
    if form := _FORM.search(name.lower()):
        same = [gpu for gpu in same if form[0] in gpu.name.lower()] or same
    if same:
        return same[0]
    return Gpu(name=name.strip(), sm=_capability(name, model), source="its compute capability")


def sm(name: str) -> int:
    """The compute capability of a GPU by name. Raises LimitError for one that isn't known."""
    return find(name).sm


def _model(name: str) -> str:
    """What is left of a name without brand, memory and form: "a100", "4090", "pro6000server"."""
    return _NOISE.sub("", _MODEL_END.sub("", name.strip().lower()))


def _has(gpu: Gpu, size_gb: str) -> bool:
    """Whether a name means this memory: the box says up to 8 % more than the driver shows."""
    gib = gpu.memory_gib or 0.0
    return f"{size_gb}GB" in gpu.name or abs(int(size_gb) - gib) < 0.08 * gib


def _capability(name: str, model: str) -> int:
    if found := _SM.fullmatch(model.replace(".", "")):
        return int(found[1])
    known = {**{key: gpu.sm for key, gpu in GPUS.items()}, **FAMILIES}
    for key, capability in known.items():
        if re.match(_model(key).replace("#", "[1-9]") + r"(?!\d)", model):
            return capability
    raise LimitError(
        "no such GPU is known",
        found=f"--gpu {name}",
        do=f"give its compute capability (sm89) or one of {', '.join(known)}",
    )
