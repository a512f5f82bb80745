"""What of an adapter_config.json can be carried to an engine, as a table.

Fields and their meaning: PEFT's `tuners/lora/config.py`. What isn't named here changes training
only, or says which tensors there are, which the tensors say themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Carried:
    """A field that is taken some ways only."""

    field: str
    accepts: Callable[[Any], bool]
    reason: str
    do: str | None = None


def _absent(value: Any) -> bool:
    return not value


_OWN_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin a training that change the model's own weights too."""


def _keeps_base(value: Any) -> bool:
    return not (isinstance(value, str) and value.lower().startswith(_OWN_BASE))


_MERGE = "merge it into the model with PEFT's merge_and_unload, and convert that"

CARRIED = (
    Carried(
        field="peft_type",
        accepts=lambda value: value == "LORA",
        reason="only LoRA can be added beside a model's weights",
    ),
    Carried(
        field="use_dora",
        accepts=_absent,
        reason="DoRA's magnitudes are of the model's weights and the adapter's together",
        do=_MERGE,
    ),
    Carried(
        field="bias",
        accepts=lambda value: value in (None, "none"),
        reason="it changes the model's biases, which are the same for all requests",
        do=_MERGE,
    ),
    Carried(
        field="lora_bias", accepts=_absent, reason="engines add no bias of an adapter", do=_MERGE
    ),
    Carried(
        field="modules_to_save",
        accepts=_absent,
        reason="it replaces whole modules of the model, which are the same for all requests",
        do=_MERGE,
    ),
    Carried(
        field="init_lora_weights",
        accepts=_keeps_base,
        reason="it was trained on changed weights of the model",
        do="save it with PEFT's path_initial_model_for_weight_conversion",
    ),
    *(
        Carried(field=field, accepts=_absent, reason=reason, do=_MERGE)
        for field, reason in (
            ("trainable_token_indices", "it changes embeddings"),
            ("target_parameters", "it changes experts, whose adapters engines can't take"),
            ("layer_replication", "it repeats layers of the model"),
            ("use_qalora", "QALoRA groups the inputs"),
            ("use_bdlora", "BD-LoRA's matrices are made of blocks"),
            ("kasa_config", "KaSA has a third matrix"),
            ("monteclora_config", "MonteCLoRA draws its weights"),
            ("alora_invocation_tokens", "engines apply an adapter to all tokens of a request"),
            ("arrow_config", "engines don't choose adapters by themselves"),
        )
    ),
)


def refuse_uncarried(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise ModelError for an adapter that an engine would compute otherwise, naming the field."""
    for each in CARRIED:
        if not each.accepts(config.get(each.field)):
            raise ModelError(
                f"the adapter {folder} can't be used: {each.reason}",
                found=f"{each.field} {config.get(each.field)!r}",
                do=each.do,
            )
