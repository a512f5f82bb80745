"""What comes before an answer's own text: its prompt, as far as that is told."""

from __future__ import annotations

from collections.abc import Sequence

from server.answer.draft import Draft
from server.answer.log_probs import of_prompt
from server.backend.base import PromptLogProb
from server.protocol.request import TextRequest
from server.text.tokenizer import TextTokenizer
from server.text_model.prepared import Prepared


def tells_prompt(request: TextRequest) -> bool:
    """Whether anything of a prompt is in its answers."""
    return bool(request.echo or request.return_token_ids or request.prompt_log_probs is not None)


def tell_prompt(
    draft: Draft,
    request: TextRequest,
    prepared: Prepared,
    tokenizer: TextTokenizer,
    log_probs: Sequence[PromptLogProb],
) -> None:
    """Begin an answer's first event; the engine told `log_probs`."""
    ids, echoes = prepared.request.input_ids, request.echo and request.log_probs is not None
    if request.echo:
        draft.text.append(prepared.echo)
    if request.return_token_ids:
        draft.prompt_token_ids = ids
    if not echoes and request.prompt_log_probs is None:
        return
    told = of_prompt(tokenizer, ids, log_probs, prepared.echo)
    if request.prompt_log_probs is not None:
        draft.prompt_log_probs = told
    if echoes:
        draft.log_probs.extend(told)
