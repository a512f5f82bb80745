"""Draft-target speculation: a small engine proposes tokens, the large one verifies them at once.

The answer is the target's own: it keeps the drafts that it would have chosen, and adds one token.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import numpy as np

from triton_repo.runtime.text_model.request import Array, Asked, CallError, Generate, Tensors
from triton_repo.runtime.token_rows import token_rows

_TOKENS = ("output_ids", "sequence_length")


class Speculation:
    """One request's rounds. `inputs` are the engine's."""

    def __init__(
        self,
        generate: Generate,
        engine: str,
        draft: str,
        asked: Asked,
        inputs: Tensors,
        outputs: Sequence[str],
        *,
        end_ids: frozenset[int],
    ) -> None:
        self._generate, self._engine, self._drafter = generate, engine, draft
        self._asked, self._outputs, self._end_ids = asked, outputs, end_ids
        self._inputs = {name: v for name, v in inputs.items() if name != "streaming"}
        self._prompt: list[int] = inputs["input_ids"][0].tolist()
        self._limit = int(inputs["request_output_len"][0, 0])
        self._tokens: list[int] = []
        self._drafted = self._accepted = 0
        self._log_prob = 0.0

    async def rounds(self) -> AsyncGenerator[Tensors, None]:
        """A response of new tokens, as the engine's stream would have them, for each round."""
        ended = False
        while not ended and len(self._tokens) < self._limit:
            drafts, logits = await self._draft()
            outputs = await self._verify(drafts, logits)
            new = token_rows(outputs["output_ids"], outputs["sequence_length"]).ids[0]
            self._tokens += new
            self._drafted += len(drafts)
            self._accepted += _agreed(drafts, new)
            # the target adds a token of its own, unless it ends after drafts that it agrees with
            ended = drafts[: len(new)] == new or not self._end_ids.isdisjoint(new)
            yield self._told(outputs, len(new))

    async def _draft(self) -> tuple[list[int], Array | None]:
        count = min(self._asked.draft_tokens, self._limit - len(self._tokens) - 1)
        if count < 1:
            return [], None
        only_target = ("stop_words_list", "lora_task_id", "lora_weights", "lora_config")
        inputs = {n: v for n, v in self._inputs.items() if n not in only_target}
        inputs |= self._so_far(count) | {
            # a draft that ends early would say less than it could
            "min_tokens": np.array([[count]], np.int32),
            "return_generation_logits": np.array([[self._asked.draft_logits]]),
        }
        wanted = [*_TOKENS, *(["generation_logits"] if self._asked.draft_logits else [])]
        outputs = await self._call(self._drafter, inputs, wanted)
        drafts = token_rows(outputs["output_ids"], outputs["sequence_length"]).ids[0][:count]
        logits = outputs.get("generation_logits") if self._asked.draft_logits else None
        return drafts, None if logits is None else logits[:, 0, : len(drafts)]

    async def _verify(self, drafts: list[int], logits: Array | None) -> Tensors:
        inputs = {**self._inputs, **self._so_far(len(drafts) + 1)}
        if drafts:
            inputs["draft_input_ids"] = np.array([drafts], np.int32)
        if drafts and logits is not None:
            inputs["draft_logits"] = logits
        return await self._call(self._engine, inputs, self._outputs)

    async def _call(self, model: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """The one response of a call that isn't a stream."""
        found = [each async for each in self._generate(model, inputs, outputs)]
        if len(found) != 1:
            raise CallError(f"{model} gave {len(found)} responses for one")
        return found[0]

    def _so_far(self, count: int) -> Tensors:
        """The inputs that change from round to round, for `count` more tokens."""
        done = len(self._tokens)
        ids = [*self._prompt, *self._tokens]
        inputs: Tensors = {
            "input_ids": np.array([ids], np.int32),
            "input_lengths": np.array([[len(ids)]], np.int32),
            "request_output_len": np.array([[count]], np.int32),
        }
        if "min_tokens" in self._inputs:
            left = max(self._asked.min_tokens - done, 0)
            inputs["min_tokens"] = np.array([[left]], np.int32)
        if "seed" in self._inputs:
            # a round with the seed of the one before would roll the same dice again
            inputs["seed"] = self._inputs["seed"] + np.uint64(done)
        return inputs

    def _told(self, outputs: Tensors, new: int) -> Tensors:
        """A round's outputs with what only all rounds together can say."""
        if "cum_log_probs" in outputs:
            self._log_prob += float(outputs["cum_log_probs"].reshape(-1)[0])
        rate = self._accepted / self._drafted if self._drafted else 0.0
        counts = {
            "cum_log_probs": np.array([[self._log_prob]], np.float32),
            "num_input_tokens": np.array([[len(self._prompt)]], np.int32),
            "num_output_tokens": np.array([[new]], np.int32),
            "total_draft_tokens": np.array([[self._drafted]], np.int32),
            "total_accepted_draft_tokens": np.array([[self._accepted]], np.int32),
            "acceptance_rate": np.array([[rate]], np.float32),
        }
        return {**outputs, **{n: v for n, v in counts.items() if n in outputs}}


def _agreed(drafts: list[int], new: list[int]) -> int:
    """How many drafts the target has kept."""
    pairs = zip(drafts, new, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(drafts), len(new)))
