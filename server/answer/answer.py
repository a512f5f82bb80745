"""One choice: detokenized, stopped, split into reasoning, content and calls, and counted."""

from __future__ import annotations

from collections.abc import Sequence

from server.answer.draft import Draft, moved
from server.answer.log_probs import LogProbs
from server.answer.opening import tell_prompt, tells_prompt
from server.backend.base import PromptLogProb, Tokens, TopLogProbs
from server.protocol.request import CallDelta, TextEvent, TextRequest
from server.text.parser import AnswerParser, Parsing
from server.text.tokenizer import TextTokenizer
from server.text_model.prepared import Prepared
from text.stop import StopMatcher


class Answer:
    """Turns one sequence's tokens into events, and knows when and why it ended.

    `prepared` is the prompt that it answers. `completion_tokens` counts every token that the
    engine emitted up to the answer's end, an end token included; `reasoning_tokens` are those of
    them that a parser told from the content.
    """

    def __init__(
        self,
        index: int,
        tokenizer: TextTokenizer,
        request: TextRequest,
        prepared: Prepared,
        parsing: Parsing | None = None,
    ) -> None:
        self.index, self._request, self._prepared = index, request, prepared
        self._tokenizer = tokenizer
        limits = self._limits = request.limits
        self._max_tokens = prepared.max_tokens
        self._detokenizer = tokenizer.detokenizer(
            skip_special_tokens=request.skip_special_tokens,
            after=prepared.request.input_ids if prepared.continues else (),
            shown=parsing.markers if parsing else frozenset(),
        )
        self._stops = StopMatcher(limits.stop, include_stop=limits.include_stop)
        self._parser = parsing.new(prepared.tail) if parsing else None
        self._eos_ids = frozenset(() if limits.ignore_eos else tokenizer.eos_ids)
        self._end_ids = self._eos_ids | frozenset(limits.stop_token_ids)
        before = len(prepared.echo)
        told = request.log_probs is not None
        self._log_probs = LogProbs(tokenizer, before=before) if told else None
        self._total_log_prob, self._chosen_tokens = 0.0, 0
        self._begun = not tells_prompt(request)
        self._plain = self._is_plain()
        self._stopped_by: str | int | None = None
        self.completion_tokens = self.reasoning_tokens = 0
        self.finish_reason: str | None = None

    @property
    def ended(self) -> bool:
        """Whether its last event was given."""
        return self.finish_reason is not None

    @property
    def mean_log_prob(self) -> float:
        """Of the tokens that the model chose, where the engine told their probabilities."""
        return self._total_log_prob / max(self._chosen_tokens, 1)

    def feed(
        self,
        batch: Sequence[Tokens],
        *,
        last: bool = False,
        prompt: Sequence[PromptLogProb] = (),
    ) -> TextEvent | None:
        """The event for these tokens, with a finish reason when they are the last; None where
        there is nothing to tell yet.

        `last` says that the engine gives no more. `prompt` is what it told of the prompt, with
        the first tokens. Not to be called after the end.
        """
        if last or not self._plain:
            return self._feed_singly(batch, last, prompt)
        ids = batch[0].ids if len(batch) == 1 else [i for tokens in batch for i in tokens.ids]
        count = self.completion_tokens + len(ids)
        if count >= self._max_tokens or not self._end_ids.isdisjoint(ids):
            return self._feed_singly(batch, last, prompt)
        if self._parser:
            return self._feed_parsed(self._parser, ids)
        if self._limits.stop:
            return self._feed_until_stop(ids)
        self.completion_tokens = count
        detokenizer = self._detokenizer
        text = detokenizer.feed(ids[0]) if len(ids) == 1 else detokenizer.feed_all(ids)
        return TextEvent.plain(self.index, text) if text else None

    def _is_plain(self) -> bool:
        """Whether a token is nothing but its text, unless it ends the answer: then those that have
        come are taken together."""
        limits, told = self._limits, self._log_probs or self._prepared.request.log_probs
        return (
            self._begun
            and not told
            and not (limits.min_tokens or self._request.return_token_ids)
            and not (limits.stop and self._parser)
        )

    def _feed_until_stop(self, ids: Sequence[int]) -> TextEvent | None:
        text = ""
        for token in ids:
            self.completion_tokens += 1
            text += self._stops.feed(self._detokenizer.feed(token))
            if self._stops.matched is not None:
                draft = Draft(self.index)
                draft.text.append(text)
                self._finish(draft, "stop")
                return draft.event(self.finish_reason, self._stopped_by)
        return TextEvent.plain(self.index, text) if text else None

    def _feed_parsed(self, parser: AnswerParser, ids: Sequence[int]) -> TextEvent | None:
        text = reasoning = ""
        calls: list[CallDelta] = []
        for token in ids:
            thought = parser.in_reasoning
            if piece := self._detokenizer.feed(token):
                parts = parser.feed(piece)
                reasoning += parts.reasoning
                calls += moved(parts.calls, len(text)) if parts.calls else ()
                text += parts.content
            if thought and parser.in_reasoning:
                self.reasoning_tokens += 1
        self.completion_tokens += len(ids)
        if not self._request.include_reasoning:
            reasoning = ""
        if calls:
            return TextEvent(index=self.index, text=text, reasoning=reasoning, calls=calls)
        return TextEvent.plain(self.index, text, reasoning) if text or reasoning else None

    def _feed_singly(
        self, batch: Sequence[Tokens], last: bool, prompt: Sequence[PromptLogProb]
    ) -> TextEvent | None:
        draft = Draft(self.index)
        if not self._begun and (last or prompt or any(tokens.ids for tokens in batch)):
            self._begun = True
            tell_prompt(draft, self._request, self._prepared, self._tokenizer, prompt)
            self._plain = self._is_plain()
        for tokens in batch:
            self._take(draft, tokens)
            if self.ended:
                break
        if last and not self.ended:
            # an engine that drops the end token ends early without showing one
            self._end(draft, "stop" if self._max_tokens else "length")
        return draft.event(self.finish_reason, self._stopped_by)

    def _take(self, draft: Draft, tokens: Tokens) -> None:
        for position, token in enumerate(tokens.ids):
            if self.completion_tokens >= self._max_tokens:  # nothing but the prompt was wanted
                self._end(draft, "length")
                return
            if tokens.log_probs:
                log_prob, top = tokens.log_probs[position], tokens.top[position : position + 1]
                self._total_log_prob += log_prob
                self._chosen_tokens += 1
            else:  # it was written for the model, or nobody asks
                log_prob, top = 0.0, ([(token, 0.0)],)[: self._request.log_probs or 0]
            self._take_token(draft, token, log_prob, top[0] if top else ())
            if not self.ended and self.completion_tokens >= self._max_tokens:
                self._end(draft, "length")
            if self.ended:
                return

    def _take_token(self, draft: Draft, token: int, log_prob: float, top: TopLogProbs) -> None:
        self.completion_tokens += 1
        if self._request.return_token_ids:
            draft.token_ids.append(token)
        early = self.completion_tokens <= self._limits.min_tokens
        if token in self._end_ids and not early:
            self._end_at(draft, token, log_prob, top)
            return
        piece = self._detokenizer.feed(token)
        if self._log_probs:
            self._log_probs.add(token, log_prob, top, len(piece))
        text = piece if early else self._stops.feed(piece)
        if self._stops.matched is not None:
            self._show(draft, text)
            self._finish(draft, "stop")
        else:
            self._show(draft, text, token=True)

    def _end_at(self, draft: Draft, token: int, log_prob: float, top: TopLogProbs) -> None:
        """An end token leaves no text: its own only for a stop id, when that was asked for."""
        text = ""
        if token not in self._eos_ids:
            self._stopped_by = token
            if self._limits.include_stop:
                piece = self._detokenizer.feed(token)
                if self._log_probs:
                    self._log_probs.add(token, log_prob, top, len(piece))
                text = self._stops.feed(piece)
        self._end(draft, "stop", text)

    def _end(self, draft: Draft, reason: str, text: str = "") -> None:
        """No more tokens come: what was held back is text after all, or a stop string's."""
        text += self._stops.feed(self._detokenizer.flush())
        self._show(draft, text + self._stops.flush())
        self._finish(draft, reason)

    def _finish(self, draft: Draft, reason: str) -> None:
        if self._stops.matched is not None:
            reason, self._stopped_by = "stop", self._stops.matched
        said = None
        if self._parser:
            parts = self._parser.flush(cut=reason == "length")
            draft.add(parts, reasoning=self._request.include_reasoning)
            reason, said = self._parser.finish_reason(reason), len(parts.content)
        if self._log_probs:
            draft.log_probs.extend(self._log_probs.shown("", said=said, last=True))
        self.finish_reason = reason

    def _show(self, draft: Draft, text: str, *, token: bool = False) -> None:
        """Text that nothing holds back any more; `token` says that it is one token's."""
        if self._parser is None:
            if self._log_probs:
                draft.log_probs.extend(self._log_probs.shown(text))
            draft.text.append(text)
            return
        thought = self._parser.in_reasoning
        if text:
            parts = self._parser.feed(text)
            draft.add(parts, reasoning=self._request.include_reasoning)
            if self._log_probs:
                held, said = self._parser.held_chars, len(parts.content)
                draft.log_probs.extend(self._log_probs.shown(text, held=held, said=said))
        if token and thought and self._parser.in_reasoning:
            self.reasoning_tokens += 1
