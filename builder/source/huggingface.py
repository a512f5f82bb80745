"""A Hugging Face folder: config.json, safetensors in one file or in shards, tokenizer files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from builder import families, manifest, safetensors_file
from builder.errors import ModelError
from builder.safetensors_file import StoredTensor
from builder.source import hf_config
from builder.source.hf_quantization import quantization
from builder.source.json_file import parsed
from builder.source.model import Source
from builder.source.quantized_linear import Gathered, gather
from builder.source.sentence import embedding

CONFIG = "config.json"
EXPORTED = "hf_checkpoint"
"""Kind of artifact that is a model folder: what trtbuild quantize --hf writes."""

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")

_TOKENIZER_CONFIG = "tokenizer_config.json"
_TEMPLATE, _MORE_TEMPLATES = "chat_template.jinja", "additional_chat_templates"
TOKENIZER_FILES = (
    "tokenizer.json",
    _TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    _TEMPLATE,
    "chat_template.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)
GENERATION_CONFIG = "generation_config.json"
GENERATION_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")


def open_folder(path: Path) -> Source:
    """The model in a folder. Raises ModelError and CorruptFileError."""
    made = manifest.read(path).kind if (path / manifest.NAME).is_file() else EXPORTED
    if made != EXPORTED:
        raise ModelError(
            f"{path} is not a model folder",
            found=f"a {made} that trtbuild made",
            do="give the model that it was made from",
        )
    if not (path / CONFIG).is_file():
        raise ModelError(
            f"{path} is not a model folder",
            found=f"no {CONFIG} in it",
            do="give a Hugging Face folder or a .gguf file",
        )
    fields = read_json(path / CONFIG)
    family = families.of(hf_config.architecture_of(path / CONFIG, fields))
    tensors = _tensors(path)
    if not tensors:
        raise ModelError(f"{path} has no tensors")
    quantized = quantization(path, fields)
    dtypes = Counter(tensor.dtype for tensor in tensors.values())
    config = hf_config.model_config(path / CONFIG, fields, dtypes.most_common(1)[0][0])
    if family.encoder:
        config = replace(config, extra={**config.extra, "embedding": embedding(path, fields)})
    named = {family.plain_name(name): tensor for name, tensor in tensors.items()}
    gathered = gather(named, quantized) if quantized else Gathered(tensors=named, kv_scales={})
    return Source(
        path=path,
        config=config,
        tensors=gathered.tensors,
        files=_files(path, fields),
        quantization=quantized,
        kv_scales=gathered.kv_scales,
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ModelError when it isn't one."""
    fields = parsed(path)
    if not isinstance(fields, dict):
        raise ModelError(f"{path} is not a JSON object", found=type(fields).__name__)
    return fields


def refuse_pickle(path: Path, files: Iterable[Path]) -> None:
    """Refuse a model whose weights are only there as pickles: loading one can run any code."""
    if pickles := sorted(file.name for file in files if file.suffix in PICKLES):
        raise ModelError(
            f"{path} has its weights in pickle files, which can run code when they are loaded",
            found=", ".join(pickles[:3]),
            do="load it with transformers and save it again with save_pretrained",
        )


def _tensors(path: Path) -> dict[str, StoredTensor]:
    if (path / INDEX).is_file():
        return _sharded(path / INDEX)
    if (path / SINGLE).is_file():
        return safetensors_file.read(path / SINGLE)
    refuse_pickle(path, path.iterdir())
    raise ModelError(f"{path} has no weights", found=f"neither {SINGLE} nor {INDEX}")


def _sharded(index: Path) -> dict[str, StoredTensor]:
    """The tensors that the index names, each in the shard where it says."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ModelError(f"{index} has no field weight_map", found=repr(places))
    shards: dict[str, dict[str, StoredTensor]] = {}
    for name in sorted({str(shard) for shard in places.values()}):
        if Path(name).name != name or not (index.parent / name).is_file():
            raise ModelError(
                f"{index} names a shard that isn't there", found=name, do="download it"
            )
        shards[name] = safetensors_file.read(index.parent / name)
    for tensor, shard in places.items():
        if tensor not in shards[shard]:
            raise ModelError(
                f"{index} places the tensor {tensor} in {shard}, which doesn't have it",
                do="download the index and the shard again, from one revision",
            )
    return {tensor: shards[shard][tensor] for tensor, shard in places.items()}


def tokenizer_files(path: Path) -> dict[str, Callable[[], bytes]]:
    """What a folder has of a tokenizer, by the name that it gets in an artifact.

    Artifacts are flat: where chat templates are a folder of files, they become a list in
    tokenizer_config.json, which transformers takes too. Raises ModelError where there is no
    tokenizer.
    """
    if not (path / TOKENIZER_FILES[0]).is_file():
        raise ModelError(
            f"{path} has no {TOKENIZER_FILES[0]}",
            do="save one there: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
        )
    files = {name: (path / name).read_bytes for name in TOKENIZER_FILES if (path / name).is_file()}
    if more := sorted((path / _MORE_TEMPLATES).glob("*.jinja")):
        main = {"default": path / _TEMPLATE} if files.pop(_TEMPLATE, None) else {}
        templates = main | {file.stem: file for file in more}
        files[_TOKENIZER_CONFIG] = partial(_with_templates, path / _TOKENIZER_CONFIG, templates)
    return files


def _with_templates(config: Path, templates: Mapping[str, Path]) -> bytes:
    named = [
        {"name": name, "template": file.read_text(encoding="utf-8")}
        for name, file in templates.items()
    ]
    return json_bytes({**(read_json(config) if config.is_file() else {}), "chat_template": named})


def _files(path: Path, fields: dict[str, Any]) -> dict[str, Callable[[], bytes]]:
    files = tokenizer_files(path)
    if (path / GENERATION_CONFIG).is_file():
        files[GENERATION_CONFIG] = (path / GENERATION_CONFIG).read_bytes
    else:
        files[GENERATION_CONFIG] = lambda: json_bytes(
            {key: fields[key] for key in GENERATION_KEYS if fields.get(key) is not None}
        )
    return files


def json_bytes(fields: dict[str, Any]) -> bytes:
    """A JSON file's bytes, the same for the same fields."""
    return (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode()
