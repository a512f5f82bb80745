"""What is used of TensorRT-LLM, imported when the model is loaded and not before.

Source: `tensorrt_llm/llmapi/llm.py`, `executor/request.py`, `sampling_params.py` and the bindings'
KvCacheRetentionConfig, 1.2 to 1.4. Arguments that aren't asked for aren't passed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from triton_repo.runtime.llmapi.asked import Asked
from triton_repo.runtime.llmapi.folder import EngineFolder
from triton_repo.runtime.llmapi.refused import Refused
from triton_repo.runtime.llmapi.sampling import FIELDS

_HEARD_SINCE = (1, 3, 0, 26)
_UNHEARD = (
    *("repetition_penalty", "presence_penalty", "frequency_penalty", "bad_token_ids"),
    *("top_p_min", "top_p_decay", "top_p_reset_ids"),
    *("length_penalty", "early_stopping", "beam_search_diversity_rate"),
)
"""Fields that TensorRT-LLM's own sampler, TorchSampler, took without a word and without effect
before version 1.3.0rc26 at the latest. Source: pull requests 16485, 16052, 16184 and 16620 of
NVIDIA/TensorRT-LLM, of summer 2026. TRTLLMSampler, which versions before 1.4 have, hears them."""


class UnusableError(Exception):
    """TensorRT-LLM isn't there, or not the one that the model needs."""


class Api:
    """The classes of the LLM API.

    `needs` are the first minor version with all settings of the model, and the first without, if
    any. Raises UnusableError where that isn't what is installed.
    """

    def __init__(self, needs: Mapping[str, str | None]) -> None:
        since, until = needs.get("since") or "1.2", needs.get("until")
        wanted = f"TensorRT-LLM {since} or later" + (f", before {until}" if until else "")
        do = f"serve it in a Triton container with {wanted}, or install that into one"
        try:
            import tensorrt_llm  # type: ignore[import-not-found]
            from tensorrt_llm import llmapi
            from tensorrt_llm.executor.request import (  # type: ignore[import-not-found]
                LoRARequest,
            )
            from tensorrt_llm.llmapi.llm_utils import (  # type: ignore[import-not-found]
                update_llm_args_with_extra_dict,
            )
        except ImportError as error:
            raise UnusableError(
                f"Triton's Python has no TensorRT-LLM, which this model needs ({error}); {do}"
            ) from error
        found = str(tensorrt_llm.__version__)
        if _minor(found) < _minor(since) or (until and _minor(found) >= _minor(until)):
            raise UnusableError(
                f"this TensorRT-LLM lacks settings that model.yaml has; found {found}; {do}"
            )
        self.version = found
        self._llm, self._sampling = tensorrt_llm.LLM, tensorrt_llm.SamplingParams
        self._guide, self._retention = llmapi.GuidedDecodingParams, llmapi.KvCacheRetentionConfig
        self._lora, self._typed = LoRARequest, update_llm_args_with_extra_dict

    def start(self, settings: Mapping[str, Any]) -> Any:
        """The LLM. With several ranks it starts a process for each by itself."""
        return self._llm(**self._typed({}, dict(settings)))

    def arguments(self, asked: Asked, engine: EngineFolder) -> dict[str, Any]:
        """What generate_async is given.

        Raises Refused for what would have no effect, ValueError for what the LLM API refuses.
        """
        fields = dict(asked.sampling)
        self._refuse_unheard(fields, str(engine.settings.get("sampler_type")))
        if asked.guide is not None:
            fields["guided_decoding"] = self._guide(**asked.guide)
        if asked.processor is not None:
            fields["logits_processor"] = _processor(asked.processor)
        arguments = {
            "inputs": asked.prompt,
            "sampling_params": self._sampling(**fields),
            "streaming": asked.step_by_step,
        }
        if kept := asked.retention:
            ranges = [self._retention.TokenRangeRetentionConfig(*each) for each in kept.ranges]
            arguments["kv_cache_retention_config"] = self._retention(
                ranges, kept.decode_priority, kept.decode_duration
            )
        if adapter := asked.adapter:
            arguments["lora_request"] = self._lora(
                adapter.name, adapter.number, adapter.path, engine.adapters_source
            )
        return arguments

    def _refuse_unheard(self, fields: Mapping[str, Any], sampler: str) -> None:
        if _release(self.version) >= _HEARD_SINCE or sampler == "TRTLLMSampler":
            return
        for field in _UNHEARD:
            if field in fields:
                names = {field: name for name, field in FIELDS.items()}
                name = names.get(field, "bad_words_list")
                raise Refused(
                    f"{name} is not supported by the sampler of TensorRT-LLM {self.version}:"
                    " build the model with --set sampler_type=TRTLLMSampler"
                )


def _processor(spec: str) -> Any:
    """A logits processor by `module:attribute`; a class is made into one."""
    module, _, attribute = spec.partition(":")
    found = import_module(module)
    for name in attribute.split("."):
        found = getattr(found, name)
    return found() if isinstance(found, type) else found


def _release(version: str) -> tuple[int, ...]:
    """1.3.0rc4 as (1, 3, 0, 4), and 1.3.0, which comes after all of these, as (1, 3, 0, 999)."""
    numbers = [int(number) for number in re.findall(r"\d+", version)[:4]]
    return (*numbers[:3], numbers[-1] if "rc" in version else 999)


def _minor(version: str) -> tuple[int, ...]:
    """1.3.0rc4 as (1, 3)."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))
