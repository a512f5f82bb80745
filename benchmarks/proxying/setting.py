"""What all the processes of a measurement share: the model's name and limits, and its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

from smollm2 import bundled_model
from tokenizers import Tokenizer

from builder.source.gguf import open_file

MODEL = "smollm2"
MAX_SEQ_LEN = 1 << 18
_SAID = (
    "A llama wakes before the sun has come over the ridge. It chews, looks about, and chews again; "
    "the grass is short up here – barely two fingers high – so most of the morning goes by eating. "
    "By noon the herd has moved 1,200 metres uphill (that's 3,937 feet), where the wind is colder "
    "and the ichu grass grows thicker.\n\n* Water: once a day\n* Rest: in the heat, 13:00–15:00\n\n"
    "Los pastores dicen «¡vamos, pequeña!» and whistle; la lluvia llega por la tarde. 🦙 "
    "```python\nherd = [llama for llama in valley if llama.hungry and not llama.asleep]\n```\n"
)


def tokenizer_folder(work: Path) -> Path:
    """SmolLM2's tokenizer as a folder."""
    folder = work / "tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in open_file(bundled_model()).files.items():
        if not (folder / name).exists():
            (folder / name).write_bytes(content())
    return folder


def answer_ids(folder: Path, work: Path) -> Path:
    """A file with the token ids that the engine answers with."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    path = work / "ids.json"
    path.write_text(json.dumps(tokenizer.encode(_SAID, add_special_tokens=False).ids))
    return path


def answer_text(folder: Path, ids: Path, tokens: int) -> str:
    """The text of so many tokens of the engine's answer."""
    own: list[int] = json.loads(ids.read_text())
    text: str = Tokenizer.from_file(str(folder / "tokenizer.json")).decode(
        [own[n % len(own)] for n in range(tokens)]
    )
    return text


def long_text(folder: Path, work: Path, tokens: int) -> Path:
    """A file with a text of at least so many tokens."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    once = len(tokenizer.encode(_SAID, add_special_tokens=False).ids)
    path = work / "long.txt"
    path.write_text(_SAID * (tokens // once + 1))
    return path
