"""Repositories as upstream's templates make them, rebuilt from the table of upstream's models.

The texts are the form of `all_models/inflight_batcher_llm/*/config.pbtxt`, TensorRT-LLM 1.2; places
are filled as its tools/fill_template.py fills them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Any

TABLE: dict[str, Any] = json.loads(
    Path(__file__).with_name("upstream_models.json").read_text(encoding="utf-8")
)
_SPEC = re.compile(r"(?P<type>[^\[]+)\[(?P<dims>[^\]]+)\](?P<flags>.*)")
_PLACES = {
    "gpt_model_type": "${batching_strategy}",
    "gpt_model_path": "${engine_dir}",
    "encoder_model_path": "${encoder_engine_dir}",
    "FORCE_CPU_ONLY_INPUT_TENSORS": "no",
    "executor_worker_path": "/opt/tritonserver/backends/tensorrtllm/trtllmExecutorWorker",
}
"""Parameter → its value in the template, where that isn't a place of the same name."""
_DECOUPLED = "model_transaction_policy { decoupled: ${decoupled_mode} }"
_BATCHING = """dynamic_batching {
  preferred_batch_size: [ ${triton_max_batch_size} ]
  max_queue_delay_microseconds: ${max_queue_delay_microseconds}
  default_queue_policy { max_queue_size: ${max_queue_size} }
}"""
_OTHERS = {
    "preprocessing": (
        'backend: "python"',
        _BATCHING,
        "instance_group [ { count: ${preprocessing_instance_count} kind: KIND_CPU } ]",
    ),
    "tensorrt_llm": (
        'backend: "${triton_backend}"',
        _DECOUPLED,
        _BATCHING,
        "instance_group [ { count: 1 kind: KIND_CPU } ]",
    ),
    "postprocessing": (
        'backend: "python"',
        "dynamic_batching {}",
        "instance_group [ { count: ${postprocessing_instance_count} kind: KIND_CPU } ]",
    ),
    "tensorrt_llm_bls": (
        'backend: "python"',
        _DECOUPLED,
        "instance_group [ { count: ${bls_instance_count} kind: KIND_CPU } ]",
    ),
    "ensemble": ('platform: "ensemble"',),
}
_STEPS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "preprocessing": (
        {
            "QUERY": "text_input",
            "DECODER_QUERY": "decoder_text_input",
            "REQUEST_OUTPUT_LEN": "max_tokens",
            "BAD_WORDS_DICT": "bad_words",
            "STOP_WORDS_DICT": "stop_words",
            "EMBEDDING_BIAS_WORDS": "embedding_bias_words",
            "EMBEDDING_BIAS_WEIGHTS": "embedding_bias_weights",
            "END_ID": "end_id",
            "PAD_ID": "pad_id",
            "PROMPT_TABLE_EXTRA_ID": "prompt_table_extra_id",
        },
        {
            "REQUEST_INPUT_LEN": "_REQUEST_INPUT_LEN",
            "INPUT_ID": "_INPUT_ID",
            "REQUEST_DECODER_INPUT_LEN": "_REQUEST_DECODER_INPUT_LEN",
            "DECODER_INPUT_ID": "_DECODER_INPUT_ID",
            "REQUEST_OUTPUT_LEN": "_REQUEST_OUTPUT_LEN",
            "STOP_WORDS_IDS": "_STOP_WORDS_IDS",
            "BAD_WORDS_IDS": "_BAD_WORDS_IDS",
            "EMBEDDING_BIAS": "_EMBEDDING_BIAS",
            "OUT_END_ID": "_PREPROCESSOR_END_ID",
            "OUT_PAD_ID": "_PREPROCESSOR_PAD_ID",
            "OUT_PROMPT_TABLE_EXTRA_IDS": "_OUT_PROMPT_TABLE_EXTRA_IDS",
        },
    ),
    "tensorrt_llm": (
        {
            "input_ids": "_INPUT_ID",
            "decoder_input_ids": "_DECODER_INPUT_ID",
            "input_lengths": "_REQUEST_INPUT_LEN",
            "decoder_input_lengths": "_REQUEST_DECODER_INPUT_LEN",
            "request_output_len": "_REQUEST_OUTPUT_LEN",
            "end_id": "_PREPROCESSOR_END_ID",
            "pad_id": "_PREPROCESSOR_PAD_ID",
            "embedding_bias": "_EMBEDDING_BIAS",
            "runtime_top_k": "top_k",
            "runtime_top_p": "top_p",
            "len_penalty": "length_penalty",
            "streaming": "stream",
            "stop_words_list": "_STOP_WORDS_IDS",
            "bad_words_list": "_BAD_WORDS_IDS",
            "prompt_table_extra_ids": "_OUT_PROMPT_TABLE_EXTRA_IDS",
        },
        {
            "output_ids": "_TOKENS_BATCH",
            "sequence_length": "_SEQUENCE_LENGTH",
        },
    ),
    "postprocessing": (
        {"TOKENS_BATCH": "_TOKENS_BATCH", "SEQUENCE_LENGTH": "_SEQUENCE_LENGTH"},
        {"OUTPUT": "text_output"},
    ),
}


def _steps() -> Iterator[str]:
    """Each step; the engine's and the ensemble's tensors of one name are joined too."""
    for model, (inputs, outputs) in _STEPS.items():
        maps = {"inputs": dict(inputs), "outputs": dict(outputs)}
        if model == "tensorrt_llm":
            for side, found in maps.items():
                outside = {name for name, _ in TABLE["ensemble"][side]}
                own = (name for name, _ in TABLE[model][side] if name in outside)
                maps[side] = {**{name: name for name in own}, **found}
        yield _step(model, maps["inputs"], maps["outputs"])


def template(model: str) -> str:
    """The config of a model with all of its places."""
    table = TABLE[model]
    lines = [f'name: "{model}"', "max_batch_size: ${triton_max_batch_size}", *_OTHERS[model]]
    lines += [_tensor("input", *pair) for pair in table["inputs"]]
    lines += [_tensor("output", *pair) for pair in table["outputs"]]
    for name in table["parameters"]:
        value = _PLACES.get(name, f"${{{name}}}")
        lines.append(f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}')
    if model == "ensemble":
        lines.append(f"ensemble_scheduling {{ step [ {', '.join(_steps())} ] }}")
    return "\n".join(lines)


def _tensor(side: str, name: str, spec: str) -> str:
    match = _SPEC.fullmatch(spec)
    assert match is not None, spec
    kind = match["type"] if match["type"].startswith("${") else f"TYPE_{match['type']}"
    flags = "".join(
        text
        for flag, text in (
            ("optional", " optional: true"),
            ("scalar", " reshape: { shape: [ ] }"),
            ("ragged", " allow_ragged_batch: true"),
        )
        if flag in match["flags"].split()
    )
    return f'{side} {{ name: "{name}" data_type: {kind} dims: [ {match["dims"]} ]{flags} }}'


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    maps = [
        f'{side} {{ key: "{key}" value: "{value}" }}'
        for side, found in (("input_map", inputs), ("output_map", outputs))
        for key, value in found.items()
    ]
    return f'{{ model_name: "{model}" model_version: -1 {" ".join(maps)} }}'


def places(engine: Path, **others: str) -> dict[str, str]:
    """What has to be filled in for the models to load, of an engine in `engine`."""
    return {
        "triton_max_batch_size": "8",
        "max_queue_size": "100",
        "max_queue_delay_microseconds": "0",
        "decoupled_mode": "True",
        "triton_backend": "tensorrtllm",
        "batching_strategy": "inflight_fused_batching",
        "engine_dir": str(engine),
        "tokenizer_dir": str(engine),
        "logits_datatype": "TYPE_FP32",
        "encoder_input_features_data_type": "TYPE_FP16",
        "prompt_embedding_table_data_type": "TYPE_FP16",
        "preprocessing_instance_count": "1",
        "postprocessing_instance_count": "1",
        "bls_instance_count": "8",
        **others,
    }


def write(folder: Path, values: Mapping[str, str]) -> Path:
    """A repository of upstream's five models, filled in with `values`."""
    for model in TABLE:
        version = folder / model / "1"
        version.mkdir(parents=True)
        text = Template(template(model)).safe_substitute(values)
        (folder / model / "config.pbtxt").write_text(text)
        if model not in ("ensemble", "tensorrt_llm"):
            (version / "model.py").write_text("class TritonPythonModel: ...\n")
    return folder
