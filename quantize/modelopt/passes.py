"""Text shown to a model that is calibrated, and how often each method looks at it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quantize.calibration import Tokens

PASSES: Mapping[str, Sequence[int]] = {
    "max": (1,),
    "smoothquant": (1,),
    "awq_lite": (1, 12),
}
"""A method's passes over the text, by what each costs: awq_lite computes every linear plain and
with eleven scales in its second."""


def forward(model: Any, batch: Tokens) -> Any:
    """What the model answers to tokens int64[B, T], wherever its layers lie."""
    import torch

    device = model.get_input_embeddings().weight.device
    if device.type == "meta":
        device = torch.device("cuda", 0)
    return model(input_ids=torch.from_numpy(batch).to(device), use_cache=False)
