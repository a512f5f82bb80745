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
        self._drafting = True

    async def rounds(self) -> AsyncGenerator[list[Tensors], None]:
        """A response of new tokens, as the engine's stream would have them, for each round."""
        ended = False
        while not ended and len(self._tokens) < self._limit:
            count = min(self._asked.draft_tokens, self._limit - len(self._tokens) - 1)
            drafts, logits = await self._draft(count)
            wanted = len(drafts or range(count)) + 1
            outputs = await self._verify(drafts, logits, wanted)
            new = token_rows(outputs["output_ids"], outputs["sequence_length"]).ids[0]
            # an end counts only from the last of min_tokens on, in the engine too
            counting = max(self._asked.min_tokens - 1 - len(self._tokens), 0)
            self._tokens += new
            self._drafted += len(drafts)
            self._accepted += _agreed(drafts, new)
            # the target adds a token of its own, unless it ends after drafts that it agrees with
            short = drafts[: len(new)] == new if drafts else len(new) < wanted
            ended = short or not self._end_ids.isdisjoint(new[counting:])
            yield [self._told(outputs, len(new))]

    async def _draft(self, count: int) -> tuple[list[int], Array | None]:
        if count < 1 or not self._drafting:
            return [], None
        only_target = ("stop_words_list", "lora_task_id", "lora_weights", "lora_config")
        inputs = {n: v for n, v in self._inputs.items() if n not in only_target}
        inputs |= self._so_far(count) | {
            # a draft that ends early would say less than it could
            "min_tokens": np.array([[count]], np.int32),
            "return_generation_logits": np.array([[self._asked.draft_logits]]),
        }
        wanted = [*_TOKENS, *(["generation_logits"] if self._asked.draft_logits else [])]
        try:
            outputs = await self._call(self._drafter, inputs, wanted)
        except CallError:
            # the answer is the target's: where no drafts can be had, it only takes longer
            self._drafting = False
            return [], None
        drafts = token_rows(outputs["output_ids"], outputs["sequence_length"]).ids[0][:count]
        logits = outputs.get("generation_logits") if self._asked.draft_logits else None
        return drafts, None if logits is None else logits[:, 0, : len(drafts)]

    async def _verify(self, drafts: list[int], logits: Array | None, count: int) -> Tensors:
        inputs = {**self._inputs, **self._so_far(count)}
        if drafts:
            inputs["draft_input_ids"] = np.array([drafts], np.int32)
        if drafts and logits is not None:
            inputs["draft_logits"] = logits
        return await self._call(self._engine, inputs, self._outputs)

    async def _call(self, model: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """The one response of a call that isn't a stream."""
        come = self._generate(model, inputs, outputs)
        found = [each async for several in come for each in several]
        if len(found) != 1:
            raise CallError(f"{model} gave {len(found)} responses for one")
        return found[0]

    def _so_far(self, count: int) -> Tensors:
        """The inputs that change from round to round, for `count` more tokens."""
        done = len(self._tokens)
        ids = [*self._prompt, *self._tokens]
        seed = self._inputs.get("seed", np.zeros((1, 1), np.uint64))
        return {
            "input_ids": np.array([ids], np.int32),
            "input_lengths": np.array([[len(ids)]], np.int32),
            "request_output_len": np.array([[count]], np.int32),
            # left out, it would be 1 in every round, and none could begin with the end
            "min_tokens": np.array([[max(self._asked.min_tokens - done, 0)]], np.int32),
            # a round with the seed of the one before would roll the same dice again
            "seed": seed + np.uint64(done),
        }

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
