"""The marks around reasoning, and what tells that a model uses them.

Sources: the chat templates that the models are published with, and vLLM's parsers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from server.text.tools import harmony
from server.text.tools.format import Reader

NO_REASONING: Final[Mapping[str, Any]] = {"enable_thinking": False, "thinking": False}
"""Variables by which chat templates are told that the model shall answer without reasoning."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Thoughts:
    """Reasoning that comes before all else: from `start` to `end`, which is one token. `then` leads
    from there to the answer. `marks` are the special tokens in all of it."""

    start: str
    end: str
    then: str = "\n\n"
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ReasoningFormat:
    """One way to think aloud before answering: behind one of `starts`, up to one of `ends`.

    A template may write the start itself. It is the model's format where its template has one of
    `told_by`, or its vocabulary all of `starts` and `ends` as tokens. `peers` are other servers'
    names for it. `read` is for answers in which there is more to it: it reads all of them, calls
    too. Where a prompt ends in a start, `skip` behind it leads to the answer. A `label` behind a
    start is no thought. `efforts` are those that the model knows, by others that it doesn't.
    `thoughts` is for answers that are held to a form behind them, or whose thoughts have a budget.
    """

    name: str
    starts: tuple[str, ...]
    ends: tuple[str, ...]
    told_by: tuple[str, ...]
    peers: tuple[str, ...] = ()
    read: Reader | None = None
    skip: str | None = None
    label: str = ""
    efforts: Mapping[str, str] = field(default_factory=dict)
    thoughts: Thoughts | None = None

    @property
    def before_form(self) -> ReasoningFormat:
        """The same where an answer is held to a form behind the thoughts."""
        if self.read is None or self.thoughts is None:
            return self
        start, end = self.thoughts.start, self.thoughts.end + self.thoughts.then
        return replace(self, starts=(start,), ends=(end,), read=None)

    @property
    def markers(self) -> tuple[str, ...]:
        """Tokens that a parser must see."""
        marks = self.thoughts.marks if self.thoughts else ()
        return (*self.starts, *self.ends, *marks)

    def opened(self, prompt: str) -> str:
        """The prompt with the thoughts begun, where other things could be at its end too."""
        if self.read is None or self.thoughts is None:
            return prompt
        bare = prompt.rstrip()
        return bare + self.thoughts.start if bare.endswith(self.starts) else prompt

    def closed(self, prompt: str) -> str:
        """The prompt with an end to the reasoning, where it begins at the prompt's end."""
        if not prompt.rstrip().endswith(self.starts):
            return prompt
        if self.skip is not None:
            return prompt.rstrip() + self.skip
        line = "" if prompt.endswith("\n") else "\n"
        return f"{prompt}{line}\n{self.ends[0]}\n\n"


REASONING_FORMATS = (
    ReasoningFormat(
        name="harmony",
        starts=(harmony.ASSISTANT,),
        ends=harmony.MARKERS,
        told_by=(f"{harmony.CHANNEL}analysis",),
        peers=("openai_gptoss", "gpt-oss"),
        read=harmony.read,
        skip=harmony.FINAL,
        efforts={"none": "low", "minimal": "low", "xhigh": "high", "max": "high"},
        thoughts=Thoughts(
            start=f"{harmony.CHANNEL}analysis{harmony.MESSAGE}",
            end=harmony.END,
            then=harmony.ASSISTANT + harmony.FINAL,
            marks=harmony.MARKERS,
        ),
    ),
    ReasoningFormat(
        name="seed_oss",
        starts=("<seed:think>",),
        ends=("</seed:think>",),
        told_by=("<seed:think>",),
        thoughts=Thoughts(start="<seed:think>", end="</seed:think>", then=""),
    ),
    ReasoningFormat(
        name="think",
        starts=("<think>",),
        ends=("</think>",),
        told_by=("<think>", "</think>"),
        peers=(
            *("deepseek_r1", "deepseek-r1", "deepseek_v3", "deepseek-v3", "qwen3", "nemotron"),
            *("glm45", "glm47", "kimi_k2", "minimax", "minimax_m2", "hunyuan_a13b"),
            *("deepseek_v4", "nemotron_v3", "mimo", "ernie45", "step3", "step3p5", "olmo3"),
            *("holo2", "poolside_v1"),
        ),
        thoughts=Thoughts(start="<think>", end="</think>"),
    ),
    ReasoningFormat(
        name="mistral",
        starts=("[THINK]",),
        ends=("[/THINK]",),
        told_by=("[THINK]",),
        thoughts=Thoughts(start="[THINK]", end="[/THINK]", then=""),
    ),
    ReasoningFormat(
        name="granite",
        starts=("Here is my thought process:", "Here's my thought process:"),
        ends=("Here is my response:", "Here's my response:"),
        told_by=("Here is my thought process", "Here's my thought process"),
    ),
    ReasoningFormat(
        name="cohere",
        starts=("<|START_THINKING|>",),
        ends=("<|END_THINKING|>",),
        told_by=("<|START_THINKING|>",),
        peers=("cohere_command3", "cohere_command4"),
        skip="<|END_THINKING|>",
    ),
    ReasoningFormat(
        name="gemma4",
        starts=("<|channel>",),
        ends=("<channel|>",),
        told_by=("<|channel>thought",),
        label="thought\n",
    ),
    ReasoningFormat(
        name="minimax_m3",
        starts=("<mm:think>",),
        ends=("</mm:think>",),
        told_by=("</mm:think>",),
        skip="</mm:think>",
    ),
    ReasoningFormat(
        name="hy_v3",
        starts=("<think:opensource>",),
        ends=("</think:opensource>",),
        told_by=("</think{}>",),
        skip="</think:opensource>",
    ),
    ReasoningFormat(
        name="longcat",
        starts=("<longcat_think>",),
        ends=("</longcat_think>",),
        told_by=("</longcat_think>",),
    ),
    ReasoningFormat(
        name="apertus",
        starts=("<|inner_prefix|>",),
        ends=("<|inner_suffix|>",),
        told_by=("<|inner_prefix|>",),
    ),
    ReasoningFormat(
        name="apriel",
        starts=("Here are my reasoning steps:",),
        ends=("[BEGIN FINAL RESPONSE]",),
        told_by=("[BEGIN FINAL RESPONSE]",),
    ),
)
