"""Every setting of a `model.yaml`: what was asked for, what follows, and whether it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from builder.errors import LimitError
from builder.mapping import Layout
from builder.targets.llmapi import rules
from builder.targets.llmapi.checked import checked, merged
from builder.targets.llmapi.model import HfModel, open_model, refuse_length, unknown
from builder.targets.llmapi.names import of_status, refuse_unknown, versions
from builder.targets.llmapi.rules import Values
from builder.targets.llmapi.settings import MODEL_YAML
from builder.targets.llmapi.typed import nest

HERE = "."
"""The model's path in a folder that holds it: relative to the folder, wherever it is moved."""

_HEADER = "# {}: what TensorRT-LLM's LLM() is given; triton_config is Triton's own."


@dataclass(frozen=True, kw_only=True)
class LlmApiOptions:
    """What the user asked for; None leaves TensorRT-LLM its own default.

    `tp`, `pp` and `moe_ep` are ranks; `kv_fraction` is the part of the memory left after the
    weights that the KV cache takes. `copy` puts the files of the model and of LoRA adapters into
    the folder (hard links where the file system allows); else they stay where they are.
    `settings` are raw `--set` pairs with dotted names, such as
    {"kv_cache_config.enable_block_reuse": "false"}: they beat the rest.
    """

    tp: int = 1
    pp: int = 1
    moe_ep: int = 1
    max_batch_size: int | None = None
    max_seq_len: int | None = None
    max_num_tokens: int | None = None
    kv_fraction: float = 0.9
    copy: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What `model.yaml` will say: `reasons` are for what nobody asked for, by dotted name.

    `notes` are what the user should know. `needs` are TensorRT-LLM's minor versions: the first
    that has all that is set and, or None, the first that doesn't. `adapters` are where LoRA's are.
    """

    model: HfModel
    settings: Mapping[str, Any]
    reasons: Mapping[str, str]
    notes: tuple[str, ...]
    needs: tuple[str, str | None]
    adapters: tuple[Path, ...] = ()

    @property
    def limits(self) -> dict[str, int | None]:
        """The limits that hold, in tokens and requests; those not set are TensorRT-LLM's."""
        values = Values(self.settings)
        longest = values.get("max_seq_len") or self.model.max_seq_len
        tokens = values.get("max_num_tokens")
        longest_input = longest - 1 if longest else None
        if not values.get("enable_chunked_prefill"):
            longest_input = min(longest_input or tokens, tokens)
        return {
            "max_batch_size": values.get("max_batch_size"),
            "max_seq_len": longest,
            "max_input_len": longest_input,
            "max_num_tokens": tokens,
            "max_beam_width": values.get("max_beam_width"),
        }

    def text(self, name: str) -> str:
        """The bytes of `model.yaml`: the same for the same settings. `name` is for its reader."""
        body: str = yaml.safe_dump(
            dict(self.settings), sort_keys=False, allow_unicode=True, width=100
        )
        why = [f"{setting}: {reason}" for setting, reason in self.reasons.items()]
        lines = [_comment(_HEADER.format(name)), body.rstrip()]
        for title, told in (("Chosen by trtbuild", why), ("To know", self.notes)):
            lines += [f"# {title}:", *(_comment(f"#   {line}") for line in told)] if told else []
        return "\n".join(lines) + "\n"


def _comment(line: str) -> str:
    """On one line, whatever a model calls itself: what came after it would be a setting."""
    return "".join(" " if each.isspace() else each for each in line)


def asked(settings: Mapping[str, str]) -> Values:
    """What raw `--set` pairs say by themselves. Raises LimitError for one that can't be."""
    refuse_unknown(settings)
    return Values(checked(MODEL_YAML, {"model": HERE, **nest(settings)}))


def place(index: int, adapter: Path) -> str:
    """Where a folder that holds its adapters has one: relative to the folder, as HERE is."""
    return f"lora/{index}/{adapter.name}"


def resolve(model: Path, options: LlmApiOptions | None = None) -> Resolved:
    """Choose and check every setting for the Hugging Face folder `model`; nothing is written.

    Raises ModelError and CorruptFileError for a folder that can't be loaded, LimitError for a
    setting that is unknown, mistyped, out of range, against another, or too much for the model.
    """
    options = options or LlmApiOptions()
    source = open_model(model)
    if "model" in options.settings:
        raise LimitError("model is the folder that is given", do="leave it out of --set")
    refuse_unknown(options.settings)
    chosen, reasons = _chosen(source, options)
    values = checked(MODEL_YAML, merged(chosen, nest(options.settings)))
    _settle_paths(values)
    adapters = _adapters(values, copy=options.copy)
    rules.check(values)
    read = Values(values)
    refuse_length(source, read.set("max_seq_len"))
    source.check(
        Layout(
            tp=read.get("tensor_parallel_size"),
            pp=read.get("pipeline_parallel_size"),
            cp=read.get("context_parallel_size"),
            moe_ep=read.set("moe_expert_parallel_size") or 1,
        ),
        attention_dp=bool(read.get("enable_attention_dp")),
    )
    _chunk(source, read, values, reasons)
    return Resolved(
        model=source,
        settings={name: values[name] for name in MODEL_YAML.settings if name in values},
        reasons={
            name: why
            for name, why in reasons.items()
            if name not in options.settings and read.set(name) is not None
        },
        notes=_notes(source, read, values, () if options.copy else adapters),
        needs=versions(values),
        adapters=adapters,
    )


def _chosen(model: HfModel, options: LlmApiOptions) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings that follow from the options, and why those that nobody asked for are so."""
    path = HERE if options.copy else str(model.path.resolve())
    graphs: dict[str, Any] = {"enable_padding": True}
    reasons = {
        "trust_remote_code": "code in a model's folder is never run unless you say so",
        "kv_cache_config.enable_block_reuse": "requests with the same beginning share its cache",
        "cuda_graph_config.enable_padding": "a batch of any size is replayed from the next graph",
        "triton_config.decoupled": "answers are streamed",
    }
    if options.max_batch_size is not None and options.max_batch_size < _GRAPHED:
        graphs["max_batch_size"] = options.max_batch_size
        reasons["cuda_graph_config.max_batch_size"] = "no graph is captured that is never used"
    if model.dtype == "float32":
        reasons["dtype"] = "float32 takes twice the memory, and its kernels are few"
    return {
        "model": path,
        "trust_remote_code": False,
        **({"dtype": "bfloat16"} if model.dtype == "float32" else {}),
        "backend": "pytorch",
        "tensor_parallel_size": options.tp,
        "pipeline_parallel_size": options.pp,
        **({"moe_expert_parallel_size": options.moe_ep} if options.moe_ep > 1 else {}),
        **{
            limit: getattr(options, limit)
            for limit in ("max_batch_size", "max_seq_len", "max_num_tokens")
            if getattr(options, limit) is not None
        },
        "kv_cache_config": {
            "enable_block_reuse": True,
            "free_gpu_memory_fraction": options.kv_fraction,
        },
        "cuda_graph_config": graphs,
        "triton_config": {
            "max_batch_size": 0,
            "decoupled": True,
            "cancellation_check_period_ms": 100,
        },
    }, reasons


_GRAPHED = 128
"""The largest batch with a CUDA graph, when nobody says."""


def _chunk(model: HfModel, read: Values, values: dict[str, Any], reasons: dict[str, str]) -> None:
    """Prompts that are longer than a step must be computed in chunks, else they are refused."""
    longest, tokens = read.set("max_seq_len") or model.max_seq_len, read.get("max_num_tokens")
    if read.set("enable_chunked_prefill") is None and longest and longest > tokens:
        values["enable_chunked_prefill"] = True
        reasons["enable_chunked_prefill"] = (
            f"sequences have up to {longest} tokens and a step computes {tokens}"
        )


def _settle_paths(values: dict[str, Any]) -> None:
    """Make folders that are here absolute: the server starts elsewhere. Others are hub names."""
    speculative = values.get("speculative_config") or {}
    for holder, name in ((values, "tokenizer"), (speculative, "speculative_model")):
        if holder.get(name) and Path(holder[name]).exists():
            holder[name] = str(Path(holder[name]).resolve())


def _adapters(values: dict[str, Any], *, copy: bool) -> tuple[Path, ...]:
    """Where the adapters are, and settle in `values` where they will be.

    Raises LimitError for one that isn't here: adapters have no hub names.
    """
    lora = values.get("lora_config") or {}
    adapters = tuple(Path(folder).resolve() for folder in lora.get("lora_dir") or ())
    for adapter in adapters:
        if not adapter.exists():
            raise LimitError(
                "lora_config.lora_dir names an adapter that isn't there", found=str(adapter)
            )
    if adapters:
        kept = enumerate(adapters)
        lora["lora_dir"] = [place(*each) if copy else str(each[1]) for each in kept]
    return adapters


def _notes(
    model: HfModel, read: Values, values: Mapping[str, Any], outside: tuple[Path, ...]
) -> tuple[str, ...]:
    notes = [unknown(model)]
    if outside:
        listed = ", ".join(map(str, outside))
        notes.append(f"adapters stay where they are (--copy takes them along): {listed}")
    if model.remote_code:
        notes.append(
            "config.json names Python code of the model's own, which runs only with "
            "--set trust_remote_code=true: TensorRT-LLM may not need it"
        )
    if read.get("trust_remote_code"):
        notes.append("trust_remote_code runs the Python code in the model's folder: read it first")
    if read.set("speculative_config.decoding_type") == "Eagle":
        notes.append(
            "the PyTorch backend takes Eagle for Eagle3: draft models of EAGLE 1 and 2 fail"
        )
    for status, meaning in (("deprecated", "will go"), ("prototype", "may change")):
        if (names := of_status(values, status)) and names != ["backend"]:
            listed = ", ".join(name for name in names if name != "backend")
            notes.append(f"{status} in TensorRT-LLM, so it {meaning}: {listed}")
    if model.kv_cache == "INT8":
        notes.append("the PyTorch backend has no INT8 KV cache: its scales are left unused")
    return tuple(note for note in notes if note)
