"""The tokens that a model is calibrated and evaluated on, by what the user chose."""

from __future__ import annotations

from builder.source import Source
from quantize.calibration import Say, Tokens, TransformersTokenizer, batches, sequences
from quantize.model import tokenizer
from quantize.options import EVALUATED_LENGTH, EVALUATED_SAMPLES, QuantizeOptions


class Samples:
    """Of one model, whose tokenizer is loaded; no sequence is longer than the model takes."""

    def __init__(self, source: Source, options: QuantizeOptions, say: Say) -> None:
        self._options, self._say = options, say
        self._longest = source.config.max_position_embeddings
        self._tokenizer = TransformersTokenizer(tokenizer(source))

    def calibration(self) -> list[Tokens]:
        """Batches int64[B, T]. Raises as `sequences` does."""
        options = self._options
        found = sequences(
            options.calib,
            self._tokenizer,
            samples=options.samples,
            max_length=min(options.max_length, self._longest),
            seed=options.seed,
            chat_template=options.chat_template,
            say=self._say,
        )
        return list(batches(found, options.batch_size))

    def held_out(self) -> list[Tokens]:
        """Sequences int64[T]. Raises as `sequences` does."""
        found = sequences(
            self._options.eval_text,
            self._tokenizer,
            samples=EVALUATED_SAMPLES,
            max_length=min(EVALUATED_LENGTH, self._longest),
            part="held_out",
            chat_template=self._options.chat_template,
            say=self._say,
        )
        return list(found)
