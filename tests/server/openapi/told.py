"""A proxy whose answers show all that the document tells of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from live_proxy import LiveProxy, config, live_proxy, served
from small_tokenizers import IM_END, byte_level, write_folder

from server.backend.base import GenerateRequest, PromptLogProb
from server.backend.memory import MemoryBackend, Script
from server.config import ServedEmbedding, ServerConfig

TOKENIZER = byte_level()
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}"
    "{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if tools %}tools: {{ tools | tojson }}\n{% endif %}{{ documents }}{{ reasoning_effort }}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALL = '<tool_call>\n{"name": "look", "arguments": {"at": 1}}\n</tool_call>'
SAID = f"<think>Hm.</think>I look.\n{CALL}{CALL}"
ENCODER = "minilm"
_LONGEST = 4096


def write(folder: Path) -> Path:
    """The model's folder."""
    return write_folder(folder, TOKENIZER, template=TEMPLATE)


def settings(folder: Path, **values: Any) -> ServerConfig:
    """A model that can do all that there is, an adapter of it, and an encoder."""
    able = {"guided": True, "context_logits": True, "generation_logits": True, "max_beam_width": 4}
    parsers = {"tool_parser": "hermes", "reasoning_parser": "deepseek_r1"}
    model = served(folder, adapters={"sql": 7}, max_seq_len=_LONGEST, **able, **parsers)
    sizes = ServedEmbedding(dimensions=3, matryoshka_dimensions=())
    encoder = served(folder, name=ENCODER, task="embed", embedding=sizes)
    return config(folder, models=(model, encoder), **values)


def backend() -> MemoryBackend:
    """Thinks, says and calls; tells how likely it all was."""
    return MemoryBackend(_script)


@asynccontextmanager
async def proxy(folder: Path, **values: Any) -> AsyncIterator[LiveProxy]:
    """It all, served."""
    async with live_proxy(settings(folder, **values), backend()) as proxy:
        yield proxy


def _script(request: GenerateRequest) -> Script:
    ids = TOKENIZER.encode(SAID, add_special_tokens=False).ids
    top = [(ids[0], -0.5), (ids[1], -1.5)]
    return Script(
        messages=[[token] for token in (*ids, TOKENIZER.token_to_id(IM_END))],
        top=top,
        prompt=[PromptLogProb(log_prob=-1.0, top=top)] * (len(request.input_ids) - 1),
    )
