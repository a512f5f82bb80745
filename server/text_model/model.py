"""One served model's text side, loaded once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from server.backend.base import GenerateRequest
from server.config import ServedModel
from server.errors import InvalidRequestError, UnusableTokenizerError
from server.protocol.request import ChatPrompt, Prompt, TextPrompt, TextRequest
from server.text.offload import offload_alone
from server.text.parser import ParserChoice, Parsing, parsing_for
from server.text.tokenizer import TextTokenizer
from server.text_model.defaults import SamplingDefaults
from server.text_model.engine import EngineRequests
from server.text_model.prepared import Prepared
from server.text_model.prompts import PromptReader, ReadPrompt
from server.text_model.rendering import Renderer
from server.text_model.thinking import Thinkers
from text.errors import UnusableFolderError
from text.tokenizer_folder import read_json

_ALL_THAT_FITS = -1
"""vLLM's `truncate_prompt_tokens` for as much of the prompt as the model takes."""


class TextModel:
    """Tokenizer, chat template, parsers and sampling defaults of one served model.

    Raises UnusableTokenizerError when its folder can't be used.
    """

    def __init__(self, served: ServedModel, *, offload_chars: int) -> None:
        self.served = served
        self.tokenizer = TextTokenizer(
            served.tokenizer_dir,
            offload_chars=offload_chars,
            chat_template=served.chat_template if served.task == "generate" else None,
        )
        template = self.tokenizer.chat_template
        self.parsers = ParserChoice.of(
            template.source,
            self.tokenizer,
            tools_told=template.tells_tools,
            tool_parser=served.tool_parser,
            reasoning_parser=served.reasoning_parser,
        )
        renderer = Renderer(template, self.parsers)
        self._prompts = PromptReader(served, self.tokenizer, renderer)
        self._defaults = _defaults(served)
        self._engine = EngineRequests(served, self.tokenizer, self._defaults)
        self._thinkers = Thinkers(self.tokenizer, self.parsers, self._prompts.longest)

    async def requests(
        self,
        request: TextRequest,
        request_id: str,
        *,
        adapter_id: int | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> list[Prepared]:
        """One request to the engine per prompt, every value explicit.

        Raises InvalidRequestError for what this model or its engine can't do, ContextLengthError
        when a prompt leaves no room.
        """
        self._engine.check(request)
        self._thinkers.check(request)
        read = await self._prompts.read(
            request.prompts,
            param=request.prompt_param,
            request=request,
            keep_tokens=self._kept(request),
        )
        held = await self._engine.held(request)
        make = partial(self._engine.make, request, held, adapter_id=adapter_id, trace=trace or {})
        several = len(read) > 1
        return [
            self._prepared(
                request, prompt, one, partial(make, f"{request_id}-{n}" if several else request_id)
            )
            for n, (prompt, one) in enumerate(zip(request.prompts, read, strict=True))
        ]

    async def prompt_ids(
        self, prompt: Prompt, *, param: str, request: TextRequest | None = None
    ) -> list[int]:
        """The ids of this prompt of `request`, however many. Raises InvalidRequestError."""
        (read,) = await self._prompts.read([prompt], param=param, request=request, bounded=False)
        return read.ids

    async def room(self, request: TextRequest) -> int:
        """How many tokens an answer may have. Raises as `requests` does for the prompt."""
        (read,) = await self._prompts.read(
            request.prompts, param=request.prompt_param, request=request
        )
        return self._prompts.room(read.ids)

    async def spans(self, prompt: TextPrompt, *, param: str) -> list[tuple[int, int, int]]:
        """The text's tokens: id, and where it stands. Raises as `prompt_ids` does."""
        self._prompts.check_countable(prompt.text, param)
        special = prompt.add_special_tokens
        if len(prompt.text) <= self.tokenizer.offload_chars:
            return self.tokenizer.spans(prompt.text, add_special_tokens=special)
        return await offload_alone(self.tokenizer.spans, prompt.text, add_special_tokens=special)

    def parsing(self, request: TextRequest) -> Parsing | None:
        """How the answers to `request` are read; None where all their text is content."""
        return parsing_for(self.parsers, request)

    def _prepared(
        self,
        request: TextRequest,
        prompt: Prompt,
        read: ReadPrompt,
        make: Callable[[list[int], int], GenerateRequest],
    ) -> Prepared:
        room, wanted = self._prompts.room(read.ids), self._wanted(request)
        max_tokens = room if wanted is None else min(wanted, room)
        self._check_min_tokens(request, room)
        return Prepared(
            request=make(read.ids, max(max_tokens, 1)),  # engines write one token or more
            max_tokens=max_tokens,
            continues=prompt.continues,
            echo=self._echo(prompt, read) if request.echo else "",
            tail=read.tail,
            thinking=self._thinkers.plan(request, read.ids, read.tail, max_tokens),
        )

    def _wanted(self, request: TextRequest) -> int | None:
        """How long an answer may be, None for all the room there is."""
        limits, default = request.limits, self._defaults.max_tokens
        if limits.max_tokens is not None or default is None:
            return limits.max_tokens
        return max(default, limits.min_tokens)

    def _check_min_tokens(self, request: TextRequest, room: int) -> None:
        fewest = request.limits.min_tokens
        if fewest > room:
            what = f"there is room for {room} tokens of an answer, not for {fewest}"
            raise InvalidRequestError(what, param="min_tokens", do="shorten the prompt")

    def _kept(self, request: TextRequest) -> int | None:
        """How much of a prompt is kept at most, None for all."""
        if request.truncate_prompt_tokens != _ALL_THAT_FITS:
            return request.truncate_prompt_tokens
        wanted = self._wanted(request) or 1
        return min(self._prompts.longest, max(self.served.max_seq_len - wanted, 1))

    def _echo(self, prompt: Prompt, read: ReadPrompt) -> str:
        """The text that repeats the prompt; messages are no text of their own."""
        if isinstance(prompt, TextPrompt):
            return prompt.text
        return "" if isinstance(prompt, ChatPrompt) else self.tokenizer.decode(read.ids)


def _defaults(served: ServedModel) -> SamplingDefaults:
    if served.default_sampling == "openai":
        return SamplingDefaults()
    try:
        return SamplingDefaults.of(read_json(served.tokenizer_dir / "generation_config.json"))
    except UnusableFolderError as error:
        raise UnusableTokenizerError(error.what, found=error.found, do=error.do) from error
