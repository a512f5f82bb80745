"""Engine folders and backends for tests: small, well-formed, made in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from builder.artifact import stage
from builder.manifest import Manifest

EngineOf = Callable[[str], Path]
"""Name of a tiny model → its float32 engine folder."""

EOS = "</s>"
END_OF_TURN = "<|end|>"
BOS = "<s>"
SPECIALS = (BOS, EOS, END_OF_TURN)
VOCAB_SIZE = 320

# the tensorrtllm backend of the tests: answers with the prompt; in a stream, token by token
ECHO_BACKEND = """
import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            length = int(pb.get_input_tensor_by_name(request, "input_lengths").as_numpy()[0])
            limit = int(pb.get_input_tensor_by_name(request, "request_output_len").as_numpy()[0])
            ids = pb.get_input_tensor_by_name(request, "input_ids").as_numpy().reshape(-1)
            ids = ids[: min(length, limit)]
            streaming = pb.get_input_tensor_by_name(request, "streaming")
            in_parts = streaming is not None and streaming.as_numpy().all()
            for part in np.split(ids, len(ids)) if in_parts else [ids]:
                tensors = [
                    pb.Tensor("output_ids", part.reshape(1, 1, -1)),
                    pb.Tensor("sequence_length", np.array([[part.size]], np.int32)),
                ]
                sender.send(pb.InferenceResponse(tensors))
            sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""


def byte_level_tokenizer() -> Tokenizer:
    """In the manner of GPT-2 and Llama 3: bytes and a few merges, BOS put before a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("Ġ", "w")]
    pieces = [*SPECIALS, *alphabet, *("".join(pair) for pair in merges)]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _finish(tokenizer)


def sentencepiece_tokenizer() -> Tokenizer:
    """In the manner of Llama 2: `▁` for spaces, one dropped at the start of what is decoded."""
    letters = [chr(code) for code in range(33, 127)]
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    pieces = [*SPECIALS, "<unk>", *bytes_, "▁", *letters, "▁w", "▁t"]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=[("▁", "w"), ("▁", "t")],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return _finish(tokenizer)


def _finish(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIALS])
    tokenizer.post_processor = TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return tokenizer


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """The tokenizer's files, two ends of sequence in its generation_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": BOS, "eos_token": {"content": EOS}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    ends = [tokenizer.token_to_id(EOS), tokenizer.token_to_id(END_OF_TURN)]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))


def engine_config(**build: Any) -> dict[str, Any]:
    """An engine's config.json; keywords replace fields of build_config."""
    return {
        "version": "1.2.1",
        "pretrained_config": {
            "architecture": "LlamaForCausalLM",
            "vocab_size": VOCAB_SIZE,
            "logits_dtype": "float32",
            "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1},
        },
        "build_config": {
            "max_batch_size": 8,
            "max_seq_len": 256,
            "max_input_len": 255,
            "max_num_tokens": 512,
            "max_beam_width": 1,
            "plugin_config": {"tokens_per_block": 32, "use_paged_context_fmha": True},
            **build,
        },
    }


def make_engine(
    out: Path,
    *,
    kind: str = "engine",
    tokenizer: Tokenizer | None = None,
    files: tuple[str, ...] = ("openvino_model.xml", "openvino_model.bin"),
    **build: Any,
) -> Path:
    """A well-formed engine artifact in `out`, with engine files that nothing can run."""
    manifest = Manifest(
        kind=kind, made_by={"test": "1"}, source={}, options=build, about={"name": "tiny"}
    )
    with stage(out, manifest) as staging:
        write_tokenizer(staging.path, tokenizer or byte_level_tokenizer())
        (staging.path / "config.json").write_text(json.dumps(engine_config(**build)))
        for name in files:
            (staging.path / name).write_bytes(b"not really " + name.encode())
    return out
