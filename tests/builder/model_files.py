"""What the builder's tests write models with, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builder import families
from builder.checkpoint import Checkpoint
from builder.checkpoint_check import check
from builder.convert import ConvertOptions, convert
from builder.dtypes import NUMPY, Array
from builder.safetensors_writer import Compute, PendingTensor, write

FIELDS: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 384,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "eos_token_id": 2,
}


def huggingface_shapes(fields: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors of a Hugging Face folder with this config.json, by the family's table."""
    config = {"head_size": fields["hidden_size"] // fields["num_attention_heads"], **fields}
    expected = families.of(fields["architectures"][0]).expected(config)
    return {name: shape for tensor in expected for name, shape in tensor.sources.items()}


def write_safetensors(path: Path, tensors: dict[str, Array]) -> None:
    """Write arrays to a file."""
    names = {dtype: name for name, dtype in NUMPY.items()}
    write(
        path,
        [
            PendingTensor(
                name=name,
                dtype=names[array.dtype],
                shape=array.shape,
                segments=lambda a=array: [Compute(size_bytes=a.nbytes, run=lambda: a)],
            )
            for name, array in tensors.items()
        ],
    )


def converted(folder: Path, out: Path, **options: Any) -> list[dict[str, Array]]:
    """The tensors of each rank of the folder's checkpoint, which is checked."""
    convert(folder, out, options=ConvertOptions(**options))
    check(out)
    checkpoint = Checkpoint.open(out)
    return [
        {name: tensor.numpy() for name, tensor in checkpoint.tensors(rank).items()}
        for rank in range(checkpoint.layout.files)
    ]
