"""Target `openvino`: a checkpoint becomes an OpenVINO model that a CPU runs: a decoder's under our
executor, an encoder's as it is.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from builder import artifact
from builder.checkpoint import Checkpoint
from builder.checkpoint_check import check_names
from builder.encoder import is_encoder
from builder.errors import MissingToolError, OutputError
from builder.limits import TOKENS_PER_BLOCK, LimitOptions, Limits, plan
from builder.lora import places
from builder.manifest import Manifest, identity, own_version, read
from builder.safetensors_file import StoredTensor
from builder.targets import openvino_encoder_engine as encoders
from builder.targets.openvino_forms import precision
from builder.targets.openvino_needs import refuse_contradictions, refuse_unsupported
from builder.targets.openvino_options import (
    EngineOptions,
    check,
    lora_config,
    max_draft_tokens,
)
from builder.targets.openvino_scratch import Scratch
from builder.targets.tensorrt_llm.config import LoraConfig
from builder.targets.tensorrt_llm.speculative_modes import SPECULATIVE_MODES

__all__ = ["MODEL_FILES", "EngineOptions", "build", "engine_config"]

MODEL_FILES = ("openvino_model.xml", "openvino_model.bin")


def build(
    checkpoint: Path,
    out: Path,
    *,
    options: LimitOptions | None = None,
    engine: EngineOptions | None = None,
    name: str | None = None,
) -> Manifest:
    """Write the engine folder: the model, its `config.json` in TensorRT-LLM's shape, the tokenizer.

    `name` is what the model will be served as, by default what the checkpoint says. Does
    nothing when `out` is already what it would write. Raises ArtifactError for a checkpoint that
    is damaged or that this target can't run, LimitError for limits that can't hold, ModelError for
    an adapter that can't be added, MissingToolError without OpenVINO, OutputError when the folder
    can't be written.
    """
    source = Checkpoint.open(checkpoint)
    limits = plan(source.config, options or LimitOptions())
    lora, config = _configs(source, limits, engine or EngineOptions())
    wanted = _manifest(source, limits, config["build_config"], name)
    found = artifact.finished(out, wanted)
    if found is not None:
        return found
    tensors = source.tensors()
    check_names(source, tensors)
    if not is_encoder(source.config["architecture"]):
        refuse_contradictions(source.config, tensors)
    size_bytes = sum(tensor.nbytes for tensor in tensors.values())
    # the codes that are computed stay beside the model until it is written
    artifact.require_space(out.resolve(), size_bytes * (2 if source.quant_algo else 1))
    with artifact.stage(out, wanted) as staging:
        _write_model(source.config, tensors, staging.path, _adapted(source.config, lora))
        (staging.path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        for file in source.tokenizer_files:
            shutil.copyfile(file, staging.path / file.name)
    return read(out, "engine")


def _configs(
    source: Checkpoint, limits: Limits, engine: EngineOptions
) -> tuple[LoraConfig | None, dict[str, Any]]:
    """Where adapters go, and the engine's `config.json`; refuses what can't be built."""
    if is_encoder(source.config["architecture"]):
        encoders.refuse_options(source.config, engine)
        encoders.refuse_unsupported(source)
        return None, encoders.encoder_config(source.config, limits)
    refuse_unsupported(source, limits)
    check(engine, limits)
    lora = lora_config(source.config, engine)
    return lora, engine_config(
        source.config, limits, max_beam_width=engine.max_beam_width, lora=lora
    )


def engine_config(
    config: Mapping[str, Any],
    limits: Limits,
    *,
    max_beam_width: int = 1,
    lora: LoraConfig | None = None,
) -> dict[str, Any]:
    """An engine's `config.json`: TensorRT-LLM 1.2's `pretrained_config` and `build_config`.

    The size of the KV cache stands where TensorRT-LLM looks for a model's runtime defaults. Logits
    and drafts cost nothing unless a request has them, so every engine gives and takes them.
    """
    cache = dict((config.get("runtime_defaults") or {}).get("kv_cache_config") or {})
    cache["max_tokens"] = limits.kv_cache_tokens
    return {
        "version": "1.2.1",
        "pretrained_config": {**config, "runtime_defaults": {"kv_cache_config": cache}},
        "build_config": {
            "max_input_len": limits.max_seq_len_tokens - 1,
            "max_seq_len": limits.max_seq_len_tokens,
            "max_batch_size": limits.max_batch_size,
            "max_beam_width": max_beam_width,
            "max_num_tokens": limits.max_num_tokens,
            "kv_cache_type": "PAGED",
            "gather_context_logits": True,
            "gather_generation_logits": True,
            "max_draft_len": max_draft_tokens(limits),
            "speculative_decoding_mode": SPECULATIVE_MODES["draft_tokens_external"],
            "lora_config": json.loads(json.dumps(asdict(lora or LoraConfig()))),
            "plugin_config": {
                "lora_plugin": config["dtype"] if lora else None,
                "remove_input_padding": True,
                "context_fmha": True,
                "use_paged_context_fmha": True,
                "tokens_per_block": TOKENS_PER_BLOCK,
            },
        },
    }


def _adapted(config: Mapping[str, Any], lora: LoraConfig | None) -> tuple[str, ...]:
    """The linears of a layer that take adapters."""
    if lora is None:
        return ()
    modules = lora.lora_target_modules
    return tuple({place.linear: None for place in places(config) if place.module in modules})


def _manifest(
    source: Checkpoint, limits: Limits, build_config: Mapping[str, Any], name: str | None
) -> Manifest:
    try:
        made_by = {"trtbuild": own_version(), "openvino": version("openvino")}
    except PackageNotFoundError:
        raise MissingToolError(
            "the openvino target needs OpenVINO", do="pip install 'trtbuild[cpu]'"
        ) from None
    name = name or source.name
    return Manifest(
        kind="engine",
        made_by=made_by,
        source=identity(source.path),
        options={
            "target": "openvino",
            "name": name,
            **asdict(limits),
            "build_config": dict(build_config),
        },
        about={
            "name": name,
            "architecture": source.config["architecture"],
            "dtype": source.config["dtype"],
            **({"kv_cache_bytes": size} if (size := limits.kv_cache_bytes) else {}),
            **precision(source.config),
        },
    )


def _write_model(
    config: Mapping[str, Any],
    tensors: Mapping[str, StoredTensor],
    folder: Path,
    adapted: tuple[str, ...],
) -> None:
    import openvino

    from builder.targets.openvino_encoder import build_encoder
    from builder.targets.openvino_graph import build_graph

    with TemporaryFile(dir=folder) as file:
        scratch = Scratch(file, limit_bytes=2 * sum(each.nbytes for each in tensors.values()))
        if is_encoder(config["architecture"]):
            graph = build_encoder(config, tensors)
        else:
            graph = build_graph(config, tensors, scratch=scratch, adapted=adapted)
        try:
            openvino.save_model(graph, folder / MODEL_FILES[0], compress_to_fp16=False)
        except RuntimeError as error:
            # OpenVINO's own words are of the C++ stream; the weights were all there and checked
            raise OutputError(
                f"can't write the model to {folder.parent}",
                found=str(error),
                do="free some space or choose another place with -o",
            ) from error
