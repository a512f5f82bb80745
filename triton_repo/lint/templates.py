"""What a template left unfilled: places that Triton can't parse, and parameters without a value."""

from __future__ import annotations

from collections.abc import Iterator

from triton_repo.lint.finding import Finding, error, warning
from triton_repo.lint.repository import Model, Repository

REQUIRED = {
    "preprocessing": ("tokenizer_dir",),
    "postprocessing": ("tokenizer_dir",),
    "tensorrt_llm": ("gpt_model_type", "gpt_model_path"),
}
"""Upstream's model → parameters without which it doesn't load."""
PRESENT = {
    "tensorrt_llm": ("tokenizer_dir", "guided_decoding_backend", "xgrammar_tokenizer_info_path")
}
"""Parameters that upstream's C++ backend looks up without a default: they may be empty."""

_FILL = "fill the template in, or write the repository with trtbuild repo"


def unfilled(repository: Repository) -> Iterator[Finding]:
    """Places of a template that are still there."""
    for model in repository.models.values():
        for place in model.unfilled:
            yield error(model.file, place, f"${{{place}}}", f"Triton can't read it: {_FILL}")
        if model.config.backend.startswith("${"):
            yield error(model.file, "backend", model.config.backend, _FILL)
        required = REQUIRED.get(model.role, ())
        for name in model.blanks:
            if name in required:
                yield error(model.file, f"parameters.{name}", model.blanks[name], _FILL)
        others = [name for name in model.blanks if name not in required]
        if others:
            yield warning(
                model.file,
                "parameters",
                f"{len(others)} not filled in: {', '.join(others)}",
                "each means unset: give it a value, or leave it out",
            )


def absent(repository: Repository) -> Iterator[Finding]:
    """Parameters that have to be there."""
    for model in repository.models.values():
        for name in REQUIRED.get(model.role, ()):
            if name not in model.values and name not in model.blanks:
                do = "the model doesn't load without it: set it"
                yield error(model.file, f"parameters.{name}", "nothing", do)
        for name in _looked_up(model):
            if name not in model.config.parameters:
                do = "TensorRT-LLM's backend doesn't load without it: write it with an empty value"
                yield error(model.file, f"parameters.{name}", "nothing", do)


def _looked_up(model: Model) -> tuple[str, ...]:
    return PRESENT.get(model.role, ()) if model.config.backend == "tensorrtllm" else ()
