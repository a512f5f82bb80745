"""Two models that a user names, compared: opened one after the other, and reported on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from builder.checkpoint import Checkpoint
from builder.errors import ModelError
from builder.progress import Progress, silent
from builder.source import open_source
from quantize.calibration import sequences
from quantize.cost import TOOLS, versions
from quantize.evaluate import compare
from quantize.recording import record
from quantize.report import Limits, Model, Report
from quantize.scorers import Predictor, Scorer, is_checkpoint, open_scorer
from quantize.scorers.endpoint import EndpointPredictor
from quantize.weight_error import WeightError, weight_errors
from trtbuild.console import say
from trtbuild.tokenizer_folder import FolderTokenizer, open_tokenizer

_TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, kw_only=True)
class Text:
    """What the models are compared on: `source` as `quantize.calibration` has it."""

    source: str | None
    tokens: int
    max_length: int


class Target:
    """A model by what a user gives: a path, or an endpoint's `URL` or `URL#MODEL`."""

    def __init__(self, given: str, *, key: str | None = None) -> None:
        self.given, self._key = given, key
        self.is_endpoint = given.startswith(("http://", "https://"))
        self.path = Path(given)
        if not self.is_endpoint and not is_checkpoint(self.path):
            open_source(self.path)

    @cached_property
    def is_checkpoint(self) -> bool:
        """Whether it is a TensorRT-LLM checkpoint."""
        return not self.is_endpoint and is_checkpoint(self.path)

    @property
    def longest(self) -> int | None:
        """How many tokens a sequence may have; None where that isn't known."""
        if self.is_endpoint:
            return None
        if self.is_checkpoint:
            return int(Checkpoint.open(self.path).config["max_position_embeddings"])
        return open_source(self.path).config.max_position_embeddings

    def open(self, tokenizer: FolderTokenizer, max_length: int) -> Scorer | Predictor:
        """The model, to be asked."""
        if not self.is_endpoint:
            return open_scorer(self.path, max_length=max_length)
        url, _, model = self.given.partition("#")
        return EndpointPredictor(url, tokenizer.tokenizer, model=model or None, key=self._key)

    def tokenizer(self) -> FolderTokenizer | None:
        """Its tokenizer; None of an endpoint, and of a checkpoint that came without."""
        if self.is_endpoint or (self.path.is_dir() and not (self.path / _TOKENIZER).is_file()):
            return None
        return open_tokenizer(self.path)

    def model(self, name: str, kind: str) -> Model:
        """It as the report has it: with the size of its weights' files."""
        if self.is_endpoint:
            return Model(name=name, kind=kind, path=self.given)
        files = self.path.glob("*.safetensors") if self.path.is_dir() else [self.path]
        size_bytes = sum(file.stat().st_size for file in files)
        return Model(name=name, kind=kind, path=str(self.path), size_bytes=size_bytes)


def evaluate(
    a: Target,
    b: Target,
    *,
    text: Text,
    limits: Limits,
    tokenizer: Path | None = None,
    progress: Progress = silent,
) -> Report:
    """Compare `b` with its source `a`. `tokenizer` is whose token ids are used, by default a's.

    Raises ModelError for models whose tokens differ, and what opening and asking them raises.
    """
    chosen = _tokenizer(a, b, tokenizer)
    length = min(text.max_length, *(each.longest or text.max_length for each in (a, b)))
    chunks = sequences(
        text.source,
        chosen,
        samples=-(-text.tokens // length),
        max_length=length,
        part="held_out",
        say=say,
    )
    done = len(chunks)
    recording = record(
        a.open(chosen, length), list(chunks), progress=lambda n, _: progress(n, 2 * done)
    )
    # the first model is out of memory by now
    scorer = b.open(chosen, length)
    found = compare(recording, scorer, lambda n, _: progress(done + n, 2 * done))
    errors, missing = _weight_errors(a, b)
    if a.is_endpoint or b.is_endpoint:
        missing["size"] = "an endpoint doesn't tell what its weights take"
    return Report(
        source=a.model(found.source, found.source_kind),
        quantized=b.model(found.quantized, found.quantized_kind),
        evaluation=found,
        weight_errors=errors,
        settings={"text": text.source or "built-in", "max_length": length},
        versions=versions(TOOLS),
        limits=limits,
        not_measured=missing,
    )


def _tokenizer(a: Target, b: Target, given: Path | None) -> FolderTokenizer:
    """Whose ids are used. Raises ModelError for models that have another one."""
    own = [each.tokenizer() for each in (a, b)]
    known = [each for each in own if each is not None]
    if given:
        known.insert(0, open_tokenizer(given))
    if not known:
        raise ModelError(
            "the models' tokenizer isn't known",
            found="none beside them",
            do="name its folder with --tokenizer",
        )
    for other in known[1:]:
        _require_same(known[0].vocabulary, other.vocabulary)
    return known[0]


def _require_same(one: dict[str, int], other: dict[str, int]) -> None:
    if one == other:
        return
    odd = sorted({token for token, _ in one.items() ^ other.items()})
    raise ModelError(
        "the models have different tokenizers: what they expect next can't be compared",
        found=f"{len(one)} and {len(other)} tokens; different are {', '.join(odd[:3])}",
        do="compare a model with what was made from it",
    )


def _weight_errors(a: Target, b: Target) -> tuple[tuple[WeightError, ...] | None, dict[str, str]]:
    """The errors of a checkpoint's weights where the other is a plain model, else why not."""
    if not b.is_checkpoint or a.is_endpoint or a.is_checkpoint:
        return None, {"weight_errors": "it takes a model and the checkpoint made from it"}
    source = open_source(a.path)
    if source.quantization:
        return None, {"weight_errors": f"{a.given} is quantized itself"}
    return weight_errors(source, b.path), {}
