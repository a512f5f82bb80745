"""What `build` and `up` take for each target: one table, and the target that it is all for.

An option of another target is refused by name, never ignored, wherever it was set: by a flag, by
the environment or in the settings file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, cast

import click
from click.core import ParameterSource

from builder.limits import LimitOptions
from builder.targets.tensorrt_llm.speculative_modes import SPECULATIVE_MODES
from trtbuild.options import COUNT, FILE_TO_WRITE, FOLDER, F, Finite

TARGETS = OPENVINO, TENSORRT_LLM, LLMAPI = "openvino", "tensorrt-llm", "llmapi"
ON_GPU = (TENSORRT_LLM, LLMAPI)
COMPILED = (OPENVINO, TENSORRT_LLM)
"""The targets whose engine is made from a checkpoint."""
_NOT_GIVEN = (ParameterSource.DEFAULT, None)
_SPECULATIVE = tuple(mode for mode in SPECULATIVE_MODES if mode != "none")


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option of some targets; `settings` are click's."""

    flag: str
    help: str
    targets: tuple[str, ...]
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """As a parameter is called."""
        return self.flag[2:].replace("-", "_")

    def added_to(self, function: F) -> F:
        """The command with it."""
        only = "" if self.targets == TARGETS else f" [{', '.join(self.targets)}]"
        return click.option(self.flag, self.name, help=self.help + only, **self.settings)(function)


def _option(flag: str, help: str, targets: tuple[str, ...], **settings: Any) -> Option:
    return Option(flag=flag, help=help, targets=targets, settings=settings)


def _pairs(_: click.Context, __: click.Parameter, words: Iterable[str]) -> dict[str, str]:
    """`name=value` words by name."""
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{word!r} is not NAME=VALUE")
        if name in pairs:
            raise click.BadParameter(f"{name} is set twice")
        pairs[name] = value
    return pairs


def _image(_: click.Context, __: click.Parameter, image: str | None) -> str | None:
    if image is not None and Path(image).is_dir():
        raise click.BadParameter(
            f"{image} is a folder, not an image: write --container=auto, or --container last"
        )
    return image


_DEFAULT = "; openvino's default is"

LIMITS: tuple[Option, ...] = (
    _option(
        "--max-batch-size",
        f"Requests in flight at once{_DEFAULT} {LimitOptions.max_batch_size}.",
        TARGETS,
        type=int,
    ),
    _option(
        "--max-seq-len",
        "Tokens of prompt and answer together; by default the model's.",
        TARGETS,
        type=int,
    ),
    _option(
        "--max-num-tokens",
        f"Tokens that one step computes at most{_DEFAULT} {LimitOptions.max_num_tokens}.",
        TARGETS,
        type=int,
    ),
    _option(
        "--kv-cache-gib",
        f"Memory for the KV cache, in GiB; by default {LimitOptions.kv_cache_gib:g}.",
        (OPENVINO,),
        type=float,
    ),
    _option(
        "--kv-fraction",
        "Part of the memory left after the weights that the KV cache takes.",
        ON_GPU,
        type=Finite(0, 1, min_open=True),
    ),
)
_COMPILER: tuple[Option, ...] = (
    _option("--gpu", "The GPU it is for; by default the one here.", (TENSORRT_LLM,)),
    _option(
        "--container",
        "Compile in the image with TensorRT-LLM 1.2.1 (auto), or in this: a name, 26.07 or 1.2.1.",
        (TENSORRT_LLM,),
        is_flag=False,
        flag_value="auto",
        metavar="[IMAGE]",
        callback=_image,
    ),
    _option(
        "--workers",
        "Ranks built at once; by default what GPUs and the host's memory hold.",
        (TENSORRT_LLM,),
        type=COUNT,
    ),
    _option(
        "--timing-cache",
        "TensorRT's timing cache; by default one in the user's cache folder.",
        (TENSORRT_LLM,),
        type=FILE_TO_WRITE,
    ),
)
_ENGINE: tuple[Option, ...] = (
    _option("--max-input-len", "Tokens of a prompt at most.", (TENSORRT_LLM,), type=COUNT),
    _option("--max-beam-width", "Beams of beam search.", COMPILED, type=COUNT),
    _option(
        "--gather-logits",
        "Keep the logits of these phases for clients that ask for them.",
        (TENSORRT_LLM,),
        type=click.Choice(["context", "generation", "all"]),
    ),
    _option(
        "--lora",
        "A LoRA adapter's folder: requests can have adapters of what it changes; may be repeated.",
        COMPILED,
        type=FOLDER,
        multiple=True,
    ),
    _option(
        "--max-lora-rank",
        "The largest adapter's rank; openvino's alone is for adapters of anything.",
        COMPILED,
        type=COUNT,
    ),
    _option(
        "--speculative",
        "Speculative decoding.",
        (TENSORRT_LLM,),
        type=click.Choice(_SPECULATIVE),
    ),
    _option("--max-draft-len", "Tokens of a draft at most.", (TENSORRT_LLM,), type=COUNT),
    _option(
        "--weight-streaming",
        "Let weights stay in the host's memory.",
        (TENSORRT_LLM,),
        is_flag=True,
    ),
    _option(
        "--multiple-profiles",
        "Tune kernels for several batch sizes.",
        (TENSORRT_LLM,),
        is_flag=True,
    ),
    _option(
        "--set",
        "Any setting of TensorRT-LLM by its own name; may be repeated, and beats all others.",
        ON_GPU,
        multiple=True,
        metavar="NAME=VALUE",
        callback=_pairs,
    ),
    _option("--copy", "Put the model's files into the folder.", (LLMAPI,), is_flag=True),
)


def _layout(targets: tuple[str, ...]) -> tuple[Option, ...]:
    """Ranks. A checkpoint has its own, which `convert` gave it."""
    return (
        _option("--tp", "Tensor-parallel ranks.", targets, type=COUNT),
        _option("--pp", "Pipeline-parallel ranks.", targets, type=COUNT),
        _option("--moe-ep", "Expert-parallel ranks, of the tensor-parallel.", targets, type=COUNT),
    )


_OF_A_RUN = (
    _option(
        "--dry-run",
        "Say what would be done, with the reason of each setting, and do nothing.",
        ON_GPU,
        is_flag=True,
    ),
)
FOR_BUILD = (*LIMITS, *_COMPILER, *_ENGINE, *_layout((LLMAPI,)), *_OF_A_RUN)
FOR_UP = (*LIMITS, *_COMPILER, *_ENGINE, *_layout(ON_GPU))


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The target, and the options that were given for it, by name."""

    target: str
    given: Mapping[str, Any]

    def among(self, names: Iterable[str]) -> dict[str, Any]:
        """Those of `names` that were given."""
        return {name: self.given[name] for name in names if name in self.given}


def target(options: tuple[Option, ...]) -> Callable[[F], F]:
    """Give a command --target and these options; it gets them as `chosen`."""

    def with_options(function: F) -> F:
        @wraps(function)
        def command(*args: Any, target: str | None, **others: Any) -> Any:
            values = {option.name: others.pop(option.name) for option in options}
            return function(*args, chosen=_chosen(options, target, values), **others)

        decorated = cast(F, command)
        for option in reversed(options):
            decorated = option.added_to(decorated)
        return click.option(
            "--target",
            type=click.Choice(TARGETS),
            show_default="tensorrt-llm where it can be built or an option is its alone,"
            " else openvino",
            help="What runs the engine.",
        )(decorated)

    return with_options


def default_target() -> str:
    """tensorrt-llm where its compiler and a GPU are, else openvino."""
    from builder.targets.tensorrt_llm.compiler import can_build

    return TENSORRT_LLM if can_build() else OPENVINO


def _chosen(options: Iterable[Option], target: str | None, values: Mapping[str, Any]) -> Chosen:
    source = click.get_current_context().get_parameter_source
    asked = [option for option in options if source(option.name) not in _NOT_GIVEN]
    if target is None:
        own = any(option.targets == (TENSORRT_LLM,) for option in asked)
        target = TENSORRT_LLM if own else default_target()
    given = {}
    for option in asked:
        if target not in option.targets:
            those = " and ".join(option.targets)
            raise click.UsageError(
                f"{option.flag} is an option of the target {those}, not of {target}."
            )
        given[option.name] = values[option.name]
    return Chosen(target=target, given=given)
