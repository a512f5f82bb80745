"""What TensorRT-LLM's xgrammar needs of a tokenizer, in the form that upstream's
`generate_xgrammar_tokenizer_info.py` writes, made without transformers and without xgrammar.

Two things differ. A token stands at its id, also where ids have holes: upstream's list closes them
and is then one off. And every end of sequence may end an answer, not only the tokenizer's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from text.errors import UnusableFolderError
from text.tokenizer_folder import TokenizerFolder


def info(folder: Path, vocab_size: int) -> dict[str, Any]:
    """`encoded_vocab`, `tokenizer_str` and `stop_token_ids` of the tokenizer in `folder`.

    The vocabulary ends where the engine's, of `vocab_size` tokens, does. Raises
    UnusableFolderError for a tokenizer that can't be read or that has no end of sequence.
    """
    tokenizer = TokenizerFolder(folder)
    ends = [each for each in tokenizer.eos_ids if each < vocab_size]
    if not ends:
        raise UnusableFolderError(f"{folder} names no end of sequence")
    ids = tokenizer.tokenizer.get_vocab(with_added_tokens=True)
    vocab = [""] * min(max(ids.values()) + 1, vocab_size)
    for token, number in ids.items():
        if number < len(vocab):
            vocab[number] = token
    return {
        "encoded_vocab": vocab,
        "tokenizer_str": tokenizer.tokenizer.to_str(),
        "stop_token_ids": ends,
    }


def text(folder: Path, vocab_size: int) -> str:
    """The same as JSON."""
    return json.dumps(info(folder, vocab_size))
