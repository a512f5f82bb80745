"""Names as people give them, an engine's or a model's, to models in the order of loading."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from builder.errors import LaunchError
from triton_repo.served import describe

_ORDER = (
    "draft",
    "preprocessing",
    "tensorrt_llm",
    "postprocessing",
    "ensemble",
    "tensorrt_llm_bls",
    "embedding",
)
"""What a model calls comes before it."""


def load_order(repository: Path, names: Sequence[str]) -> list[str]:
    """The models that `names` stand for, each once; none are all.

    Raises LaunchError for a name that is neither an engine's nor a model's.
    """
    engines = describe(repository).engines
    sets = {
        engine.name: [engine.models[each] for each in _ORDER if each in engine.models]
        for engine in engines
    }
    known = {model for models in sets.values() for model in models}
    wanted: list[str] = []
    for name in names or sets:
        if name not in sets and name not in known:
            found = ", ".join([*sets, *sorted(known)])
            raise LaunchError(f"{repository} has no model or engine {name}", found=found)
        # an engine may be called as a model is; then it stands for its models
        wanted += [model for model in sets.get(name, [name]) if model not in wanted]
    everything = [model for models in sets.values() for model in models]
    return sorted(wanted, key=everything.index)
