"""POST /v1/chat/completions and /v1/completions."""

from __future__ import annotations

from starlette.requests import Request

from server.errors import InvalidRequestError
from server.protocol.request import TextRequest
from server.reply import CHAT, COMPLETIONS, Dialect, Reply
from server.serving import Serving
from server.text.offload import parsed


class Completions:
    """The routes' handlers."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def chat(self, request: Request) -> Reply:
        """POST /v1/chat/completions."""
        return await self._reply(CHAT, request)

    async def text(self, request: Request) -> Reply:
        """POST /v1/completions."""
        return await self._reply(COMPLETIONS, request)

    async def _reply(self, dialect: Dialect, request: Request) -> Reply:
        asked = await parsed(dialect.parse, await self._serving.accept(request))
        found = self._serving.find(request, asked.model)
        self._check_size(asked)
        return Reply(dialect, asked, found=found, serving=self._serving)

    def _check_size(self, asked: TextRequest) -> None:
        config, prompts = self._serving.config, len(asked.prompts)
        if prompts > config.max_prompts:
            what = f"more than {config.max_prompts} prompts"
            raise InvalidRequestError(what, param=asked.prompt_param)
        if prompts * (asked.best_of or asked.n) > config.max_choices:
            what = f"more than {config.max_choices} answers in all are asked for"
            raise InvalidRequestError(what, param="best_of" if asked.best_of else "n")
