"""A repository's engines as the proxy's models: what each can do, read from where it says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from builder.errors import ArtifactError, LaunchError
from server.config import ServedEmbedding, ServedModel
from triton_repo.served import ServedEngine

_GUIDED = "guided_decoding_backend"


def served_models(
    repository: Path,
    engines: Sequence[ServedEngine],
    *,
    aliases: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[ServedModel, ...]:
    """The models of these engines. `aliases` maps further names to models or adapters, `settings`
    are fields that all models get.

    Raises LaunchError for an alias of nothing, or a name that is there twice; ArtifactError for a
    repository that doesn't say what it should.
    """
    models = [replace(_model(repository, engine), **(settings or {})) for engine in engines]
    for alias, name in (aliases or {}).items():
        models = _with_alias(models, alias, name)
    names = [name for model in models for name in _names(model)]
    for name in names:
        if names.count(name) > 1:
            raise LaunchError(
                "two models would have one name", found=name, do="choose other names or aliases"
            )
    return tuple(models)


def _with_alias(models: list[ServedModel], alias: str, name: str) -> list[ServedModel]:
    for place, model in enumerate(models):
        if name in (model.name, *model.aliases):
            changed = replace(model, aliases=(*model.aliases, alias))
        elif name in model.adapters:
            adapters = {**model.adapters, alias: model.adapters[name]}
            changed = replace(model, adapters=adapters)
        else:
            continue
        return [*models[:place], changed, *models[place + 1 :]]
    known = ", ".join(name for model in models for name in _names(model))
    raise LaunchError(f"{alias} is to be another name of {name}", found=f"only {known}")


def _names(model: ServedModel) -> tuple[str, ...]:
    return (model.name, *model.aliases, *model.adapters)


def _model(repository: Path, engine: ServedEngine) -> ServedModel:
    able = _llmapi(engine) if engine.target == "llmapi" else _engine(repository, engine)
    return ServedModel(
        name=engine.name,
        tokenizer_dir=engine.tokenizer_dir,
        max_seq_len=engine.max_seq_len,
        max_input_len=engine.max_input_len,
        max_beam_width=engine.max_beam_width,
        triton_model=engine.model,
        adapters=engine.adapters,
        **able,
    )


def _engine(repository: Path, engine: ServedEngine) -> dict[str, Any]:
    """What an engine of TensorRT-LLM's form can do, by its config.json and its model's config."""
    from triton_repo.engine import anyones

    if engine.embedding:
        return {"task": "embed", "embedding": ServedEmbedding(**asdict(engine.embedding))}
    built = anyones(engine.engine_dir)
    return {
        "guided": bool(_parameters(repository / engine.model).get(_GUIDED)),
        "context_logits": built.gather_context_logits,
        "generation_logits": built.gather_generation_logits,
        "vocab_size": built.vocab_size or None,
        "tokens_per_block": built.tokens_per_block,
    }


def _llmapi(engine: ServedEngine) -> dict[str, Any]:
    """What the LLM API can do, by its model.yaml."""
    import yaml  # type: ignore[import-untyped]

    from triton_repo.llmapi.engine import SETTINGS_FILE

    path = engine.engine_dir / SETTINGS_FILE
    settings = yaml.safe_load(path.read_text()) if path.is_file() else {}
    blocks = (settings.get("kv_cache_config") or {}).get("tokens_per_block")
    return {
        "kind": "llmapi",
        "guided": bool(settings.get(_GUIDED)),
        "context_logits": False,
        "generation_logits": bool(settings.get("gather_generation_logits")),
        **({"tokens_per_block": int(blocks)} if blocks else {}),
    }


def _parameters(model: Path) -> dict[str, str]:
    """The parameters of a model's config.pbtxt."""
    from triton_repo.models.pbtxt import from_text

    path = model / "config.pbtxt"
    try:
        config = from_text(path.read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"can't read {path}", found=str(error)) from error
    return {name: value.string_value for name, value in config.parameters.items()}
