"""The conversation that a request goes on with: what is kept of it, and as much as has room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

import msgspec

from server.errors import (
    ContextLengthError,
    InvalidRequestError,
    NotKeptError,
    UnknownPreviousError,
)
from server.protocol.openai_chat.messages import MAX_MESSAGES
from server.protocol.request import TextRequest
from server.protocol.responses.input import Reference
from server.protocol.responses.items import Item, response_of
from server.protocol.responses.request import Asked
from server.protocol.responses.truncation import beginning_at, beginnings
from server.protocol.sse import encode
from server.responses import item_json
from server.responses.conversation import Conversation
from server.responses.store import Kept, Store
from server.text.offload import offload
from server.text_model import TextModel

T = TypeVar("T")

_ROOM_SHARE: Final = 8
"""Where no length is asked for, an answer has room if so many parts of the context can't be
filled by the conversation."""
_SHORT_ITEMS: Final = 200
_READ_SHARE: Final = 4
"""Of what is read for references, so much may be taken: they name items of long conversations."""


class Context:
    """Finds what requests refer to in the store: of kept items no more than `max_bytes`."""

    def __init__(self, store: Store | None, *, max_bytes: int) -> None:
        self._store, self._max_bytes = store, max_bytes

    async def conversation(self, asked: Asked, owner: str, body_bytes: int) -> Conversation:
        """All of it: what came before, then the request's own items, of a body of so many bytes.

        Raises UnknownPreviousError, NotKeptError for a reference, InvalidRequestError for more
        than is taken.
        """
        before = await self._before(asked.previous_response_id, owner)
        items, size_bytes = list(before.items), before.size_bytes
        self._check_size(size_bytes, len(items) + len(asked.items), "previous_response_id")
        read = _Read()
        for item in asked.items:
            if isinstance(item, Reference):
                item, item_bytes = await self._referred(item, owner, read)
                size_bytes += item_bytes
                self._check_size(size_bytes, len(items), "input")
            items.append(item)
        return Conversation(items=items, size_bytes=size_bytes + body_bytes)

    async def fitting(
        self, asked: Asked, conversation: Conversation, model: TextModel
    ) -> tuple[TextRequest, Conversation]:
        """What is asked of the model, and the conversation to keep.

        With truncation, only the end that leaves room for an answer is asked; the rest is kept,
        as a later turn may have room for it, until it is so long that no turn could follow. Raises
        InvalidRequestError, ContextLengthError.
        """
        items = conversation.items
        if not asked.truncates:
            return await text_request(asked, items), conversation
        starts = beginnings(items)
        low, high = 0, len(starts) - 1
        while low < high:
            middle = (low + high) // 2
            end = beginning_at(items, starts[middle])
            if await _has_room(await text_request(asked, end), model):
                high = middle
            else:
                low = middle + 1
        rest = beginning_at(items, starts[low])
        is_short = not low or conversation.size_bytes <= self._max_bytes // 2
        kept = conversation if is_short else replace(conversation, items=rest)
        return await text_request(asked, rest), kept

    def _check_size(self, size_bytes: int, count: int, param: str) -> None:
        if size_bytes > self._max_bytes or count > MAX_MESSAGES:
            most = f"{self._max_bytes} bytes or {MAX_MESSAGES} items"
            what = f"the conversation has more than {most} - '{param}'"
            raise InvalidRequestError(what, param=param, do="begin a new one")

    async def _before(self, previous_id: str | None, owner: str) -> Conversation:
        """The conversation so far, without items where it is too long."""
        if previous_id is None:
            return Conversation()
        found = await self._read(owner, previous_id, self._told)
        if found is None:
            what = f"Previous response with id '{previous_id[:100]}' not found."
            raise UnknownPreviousError(what, param="previous_response_id")
        return found

    def _told(self, kept: Kept) -> Conversation:
        size_bytes = len(kept.items) + len(kept.response)
        if size_bytes > self._max_bytes:
            return Conversation(size_bytes=size_bytes)
        output = [item for item in _output(kept) if not _is_broken_call(item)]
        return Conversation(items=item_json.read(kept.items) + output, size_bytes=size_bytes)

    async def _referred(self, reference: Reference, owner: str, read: _Read) -> tuple[Item, int]:
        """The item of that id, and how long its JSON is. Ids of ours say which response has them,
        which is `read` once."""
        response_id = response_of(reference.id) or ""
        if response_id not in read.responses:
            read.responses.add(response_id)
            await self._read(owner, response_id, read.add)
            self._check_size(read.size_bytes // _READ_SHARE, 0, "input")
        item = read.items.get(reference.id)
        if item is None:
            what = (
                f"Item with id '{reference.id[:100]}' not found. It is kept with a stored response."
            )
            raise NotKeptError(what, param=reference.param)
        return item

    async def _read(self, owner: str, response_id: str, of: Callable[[Kept], T]) -> T | None:
        return await self._store.read(owner, response_id, of) if self._store else None


class _Read:
    """What was read of the store for one request's references: items by id, each with the length
    of its JSON."""

    def __init__(self) -> None:
        self.responses: set[str] = set()
        self.items: dict[str, tuple[Item, int]] = {}
        self.size_bytes = 0

    def add(self, kept: Kept) -> None:
        self.size_bytes += len(kept.items) + len(kept.response)
        output = ((item, len(encode(item))) for item in _output(kept))
        for item, size_bytes in (*item_json.sized(kept.items), *output):
            self.items[item["id"]] = item, size_bytes


async def text_request(asked: Asked, items: Sequence[Item]) -> TextRequest:
    """What is asked of the model, for a long conversation made beside the loop. Raises
    InvalidRequestError."""
    if len(items) <= _SHORT_ITEMS:
        return asked.text_request(items)
    return await offload(asked.text_request, items)


def _output(kept: Kept) -> list[Item]:
    output: list[Item] = msgspec.json.decode(kept.response)["output"]
    return output


def _is_broken_call(item: Item) -> bool:
    """A call that was cut off has no arguments that could be read."""
    return bool(item["type"] == "function_call" and item["status"] != "completed")


async def _has_room(request: TextRequest, model: TextModel) -> bool:
    try:
        room = await model.room(request)
    except ContextLengthError:
        return False
    wanted = request.limits.max_tokens or model.served.max_seq_len // _ROOM_SHARE
    enough: int = min(wanted, model.served.max_seq_len // 2)
    return room >= enough
