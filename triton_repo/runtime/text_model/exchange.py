"""One request under way: from the client's text to the engine's ids, from its tokens to text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass

from text.answer import Ends
from text.detokenizer import TokenTable
from triton_repo.runtime.preprocessing_tensors import Preprocessor
from triton_repo.runtime.text_model.answers import NEEDED, OWN, Answers, Repeated, repeated
from triton_repo.runtime.text_model.client import Client
from triton_repo.runtime.text_model.request import (
    PREPROCESSING,
    Asked,
    CallError,
    Generate,
    Tensors,
    read,
)
from triton_repo.runtime.text_model.speculation import Speculation

_CANCEL_S = 0.1
"""How long Triton is given for what follows from a client's cancel."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all requests of a model share. `generate` calls a model by its name."""

    generate: Generate
    engine: str
    draft: str | None
    decoupled: bool
    preprocessor: Preprocessor
    tokenizing: ThreadPoolExecutor
    eos_ids: frozenset[int]
    table: TokenTable
    skip_special_tokens: bool
    accumulate: bool
    exclude_input: bool


class Exchange:
    """A client's request and its answer."""

    def __init__(self, setting: Setting, client: Client) -> None:
        self._setting, self._client = setting, client

    async def run(self) -> None:
        """Answer the request, come what may."""
        try:
            await self._answer()
        except asyncio.CancelledError:
            self._client.fail("the client has gone", "CANCELLED")
            # a final flag that meets the cancel within Triton makes it hold the request for ever
            await asyncio.sleep(_CANCEL_S)
        except CallError as error:
            self._client.fail(str(error), error.code)
        except ValueError as error:
            self._client.fail(str(error), "INVALID_ARGUMENT")
        except Exception as error:  # noqa: BLE001 - one request's fault isn't another's
            self._client.fail(f"{type(error).__name__}: {error}", "INTERNAL")
        finally:
            self._client.end()

    async def _answer(self) -> None:
        setting = self._setting
        asked = read(
            self._client.inputs,
            drafting=setting.draft is not None,
            exclude_input=setting.exclude_input,
            parts=setting.decoupled,
        )
        loop = asyncio.get_running_loop()
        # a long prompt takes its time, and the other answers go on
        prepared = await loop.run_in_executor(setting.tokenizing, self._prepare, asked)
        prompts: list[Repeated] = []
        if not (asked.streaming or asked.exclude_input):
            prompts = await loop.run_in_executor(setting.tokenizing, self._prompts, prepared)
        answers = Answers(
            asked,
            setting.table,
            [self._ends(asked, prepared, row) for row in range(asked.rows)],
            prompts,
            skip_special_tokens=setting.skip_special_tokens,
            accumulate=setting.accumulate,
        )
        async with aclosing(self._responses(asked, prepared)) as responses:
            async for come in responses:
                for told in answers.take(come):
                    self._client.send(told, last=answers.finished)
                if answers.finished:
                    break
        for told in answers.rest():
            self._client.send(told, last=answers.finished)

    def _prepare(self, asked: Asked) -> Tensors:
        """The prompts as ids, and all else that preprocessing makes for the engine."""
        inputs = {PREPROCESSING[n]: v for n, v in asked.inputs.items() if n in PREPROCESSING}
        try:
            (ids,) = self._setting.preprocessor.encode([self._setting.preprocessor.prompts(inputs)])
            return self._setting.preprocessor.outputs(ids, inputs)
        except ValueError as error:
            raise ValueError(_in_our_names(str(error))) from error

    def _prompts(self, prepared: Tensors) -> list[Repeated]:
        """Each row's prompt, for answers that begin with it."""
        table, skip = self._setting.table, self._setting.skip_special_tokens
        lengths = prepared["REQUEST_INPUT_LEN"].reshape(-1)
        return [
            repeated(ids[:n].tolist(), table, skip_special_tokens=skip)
            for ids, n in zip(prepared["INPUT_ID"], lengths, strict=True)
        ]

    def _responses(self, asked: Asked, prepared: Tensors) -> AsyncGenerator[list[Tensors], None]:
        setting = self._setting
        inputs = asked.for_engine(prepared)
        wanted = [name for name in self._client.wanted if name not in OWN]
        wanted = list(dict.fromkeys((*NEEDED, *wanted)))
        if setting.draft is None or asked.draft_tokens < 1:
            return setting.generate(setting.engine, inputs, wanted)
        end_ids = self._ends(asked, prepared, 0).end_ids
        return Speculation(
            setting.generate, setting.engine, setting.draft, asked, inputs, wanted, end_ids=end_ids
        ).rounds()

    def _ends(self, asked: Asked, prepared: Tensors, row: int) -> Ends:
        own = asked.inputs.get("end_id")
        return Ends(
            end_ids=self._setting.eos_ids if own is None else frozenset([int(own[row, 0])]),
            stops=asked.stops(row),
            max_tokens=int(prepared["REQUEST_OUTPUT_LEN"].reshape(-1)[row]),
            min_tokens=max(asked.min_tokens - 1, 0),
        )


def _in_our_names(message: str) -> str:
    """An error of preprocessing that begins with its name of an input of ours."""
    for ours, theirs in PREPROCESSING.items():
        if message.startswith(f"{theirs}:"):
            return ours + message[len(theirs) :]
    return message
