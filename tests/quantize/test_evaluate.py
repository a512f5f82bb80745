"""Promise: the figures are what their definitions say, whatever runs the models."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from builder.convert import ConvertOptions, convert
from builder.errors import ArtifactError, LimitError, ModelError, OutputError, RequestError
from quantize.evaluate import compare, evaluate
from quantize.recording import record
from quantize.scorers import Logits, Tokens, open_scorer
from quantize.scorers.endpoint import POSITIONS, EndpointPredictor
from quantize.scorers.openvino_checkpoint import CheckpointScorer, ConvertedScorer

RNG = np.random.default_rng(11)
SEQUENCES = [RNG.integers(3, 384, size=length).astype(np.int64) for length in (40, 17, 2)]
HALF, QUARTER = np.log(0.5), np.log(0.25)


class Fixed:
    """A scorer that gives the same logits, a row for each token."""

    kind = "fixed"

    def __init__(self, name: str, rows: Any) -> None:
        self.name, self._rows = name, np.array(rows, np.float32)

    def logits(self, tokens: Tokens) -> Logits:
        return self._rows[: len(tokens)]


def tokens(*ids: int) -> Tokens:
    return np.array(ids, np.int64)


# over a vocabulary of three: probabilities 1/2, 1/4, 1/4; shifted, which softmax doesn't see
FIRST = Fixed("first", [[HALF + 7, QUARTER + 7, QUARTER + 7]] * 4)
SECOND = Fixed("second", [[QUARTER, HALF, QUARTER]] * 4)


def test_perplexity_is_over_all_predicted_tokens_of_all_sequences() -> None:
    # predicted: 0 (1/2), 1 (1/4), 0 (1/2) of the first; 2 (1/4) of the second
    found = evaluate(FIRST, SECOND, [tokens(2, 0, 1, 0), tokens(1, 2)])
    assert found.positions == 4
    assert found.tokens == 6
    assert found.source_perplexity == pytest.approx((2 * 4 * 2 * 4) ** (1 / 4))
    # the other model gives them 1/4, 1/2, 1/4, 1/4
    assert found.quantized_perplexity == pytest.approx((4 * 2 * 4 * 4) ** (1 / 4))
    assert found.perplexity_increase == pytest.approx(2 ** (1 / 4) - 1)


def test_kl_is_of_the_sources_distribution_and_in_nats() -> None:
    other = Fixed("other", [[np.log(0.7), np.log(0.2), np.log(0.1)]] * 2)
    found = evaluate(FIRST, other, [tokens(0, 1)])
    expected = 0.5 * np.log(0.5 / 0.7) + 0.25 * np.log(0.25 / 0.2) + 0.25 * np.log(0.25 / 0.1)
    assert found.kl is not None
    assert found.kl.mean == pytest.approx(expected, abs=1e-4)
    assert sum(found.kl.counts) == found.positions


def test_the_distribution_of_kl_is_told_by_mean_median_and_largest() -> None:
    rows = [[HALF, QUARTER, QUARTER]] * 3 + [[np.log(0.98), np.log(0.01), np.log(0.01)]] * 3
    found = evaluate(
        Fixed("a", [[HALF, QUARTER, QUARTER]] * 6), Fixed("b", rows), [tokens(*[0] * 6)]
    )
    largest = 0.5 * np.log(0.5 / 0.98) + 0.5 * np.log(0.25 / 0.01)
    assert found.kl is not None
    assert found.kl.max == pytest.approx(largest, abs=1e-3)
    assert found.kl.mean == pytest.approx(largest * 2 / 5, abs=1e-3)
    assert found.kl.median < 1e-6
    assert found.kl.median < found.kl.p99 <= found.kl.max


def test_agreement_counts_equal_likeliest_tokens_by_position() -> None:
    rows = [[3, 0, 0], [0, 3, 0], [3, 0, 0], [0, 0, 3]]
    found = evaluate(Fixed("a", [[3, 0, 0]] * 4), Fixed("b", rows), [tokens(0, 1, 2, 0)])
    assert found.agreement == pytest.approx(2 / 3)
    assert [stretch.agreement for stretch in found.profile] == [1, 0, 1]
    assert [(stretch.begin, stretch.end) for stretch in found.profile] == [(0, 1), (1, 2), (2, 3)]


def test_the_profile_joins_the_positions_of_long_sequences() -> None:
    long = Fixed("a", np.tile([[3.0, 0, 0]], (301, 1)))
    found = evaluate(long, long, [tokens(*[0] * 301), tokens(0, 0)])
    assert len(found.profile) <= 64
    assert found.profile[0].begin == 0
    assert found.profile[-1].end == 300
    assert sum(stretch.positions for stretch in found.profile) == 301


def test_a_token_that_a_model_rules_out_spoils_no_figure() -> None:
    masked = Fixed("masked", [[0, 0, -np.inf]] * 2)
    found = evaluate(masked, masked, [tokens(0, 1)])
    assert found.kl is not None
    assert found.kl.max < 1e-6
    assert found.source_perplexity == pytest.approx(2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_an_error_that_says_where(bad: float) -> None:
    broken = Fixed("broken", [[0, 1, 2], [0, bad, 2], [0, 1, 2]])
    with pytest.raises(ModelError, match=r"broken computes logits .* at position 1"):
        evaluate(FIRST, broken, [tokens(0, 1, 2)])
    with pytest.raises(ModelError, match=r"broken computes logits .* at position 1"):
        record(broken, [tokens(0, 1, 2)])


@pytest.mark.parametrize(
    ("sequences", "says"),
    [
        ([], "no text"),
        ([tokens()], "too short.*found 0 tokens"),
        ([tokens(0, 1), tokens(1)], "too short.*found 1 token;"),
    ],
)
def test_text_of_which_nothing_can_be_predicted_is_refused(
    sequences: list[Tokens], says: str
) -> None:
    with pytest.raises(LimitError, match=says):
        evaluate(FIRST, SECOND, sequences)


def test_vocabularies_of_two_sizes_are_refused() -> None:
    with pytest.raises(ModelError, match=r"first and wide have vocabularies.*3 and 4 logits"):
        evaluate(FIRST, Fixed("wide", [[0, 0, 0, 0]] * 2), [tokens(0, 1)])
    with pytest.raises(ModelError, match="first doesn't fit the tokens"):
        record(FIRST, [tokens(0, 3)])


def test_what_is_kept_on_disk_is_known_and_refused_when_it_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = record(FIRST, [tokens(0, 1, 2), tokens(0, 1)], place=tmp_path)
    assert recording.spilled_bytes == 3 * 3 * 2
    assert not list(tmp_path.iterdir())
    usage = type("usage", (), {"free": 17})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match="not enough space"):
        record(FIRST, [tokens(0, 1, 2), tokens(0, 1)], place=tmp_path)


@pytest.mark.reference
def test_torch_agrees_on_kl_perplexity_and_agreement() -> None:
    import torch
    from torch.nn import functional

    torch.manual_seed(0)
    one = 3 * torch.randn(200, 1000)
    other = one + 0.3 * torch.randn(200, 1000)
    ids = torch.randint(0, 1000, (200,))
    found = evaluate(Fixed("a", one), Fixed("b", other), [ids.numpy()])
    p, q = (functional.log_softmax(each[:-1].double(), -1) for each in (one, other))
    kl = functional.kl_div(q, p, reduction="none", log_target=True).sum(-1)
    loss = functional.cross_entropy(other[:-1].double(), ids[1:])
    agreed = (one.argmax(-1) == other.argmax(-1))[:-1].double().mean()
    assert found.kl is not None
    assert found.kl.mean == pytest.approx(float(kl.mean()), rel=1e-3)
    assert found.kl.p99 == pytest.approx(float(kl.quantile(0.99)), rel=3e-3)
    assert found.quantized_perplexity == pytest.approx(float(loss.exp()), rel=1e-6)
    assert found.agreement == pytest.approx(float(agreed))


@pytest.fixture(scope="module")
def checkpoint(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float32 checkpoint of the tiny Llama."""
    folder = tmp_path_factory.mktemp("checkpoints") / "llama"
    convert(tiny_models["llama"], folder, options=ConvertOptions(dtype="float32"))
    return folder


def test_a_model_compared_with_itself_costs_nothing(checkpoint: Path) -> None:
    scorer = open_scorer(checkpoint)
    found = evaluate(scorer, scorer, SEQUENCES)
    assert found.kl is not None
    assert found.kl.max < 1e-6
    assert found.agreement == 1
    assert found.perplexity_increase == 0
    assert not found.missing


@pytest.mark.reference
@pytest.mark.parametrize("name", ["llama", "qwen2", "mistral"])
def test_transformers_and_openvino_score_a_model_alike(
    tiny_models: dict[str, Path], tmp_path: Path, name: str
) -> None:
    convert(tiny_models[name], tmp_path / "checkpoint", options=ConvertOptions(dtype="float32"))
    model, checkpoint = open_scorer(tiny_models[name]), open_scorer(tmp_path / "checkpoint")
    assert (model.kind, checkpoint.kind) == ("torch", "checkpoint")
    for sequence in SEQUENCES:
        expected, found = model.logits(sequence), checkpoint.logits(sequence)
        assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()
    figures = evaluate(model, checkpoint, SEQUENCES)
    assert figures.perplexity_increase == pytest.approx(0, abs=1e-5)
    assert figures.agreement == 1


def test_without_torch_a_model_is_scored_by_its_checkpoint(
    tiny_models: dict[str, Path], checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantize.scorers.find_spec", lambda name: None)
    scorer = open_scorer(tiny_models["llama"])
    assert isinstance(scorer, ConvertedScorer)
    np.testing.assert_array_equal(
        scorer.logits(SEQUENCES[0]), CheckpointScorer(checkpoint).logits(SEQUENCES[0])
    )


@pytest.mark.reference
def test_a_model_that_is_changed_in_place_is_compared_with_what_it_was(
    tiny_models: dict[str, Path],
) -> None:
    import torch
    import transformers

    from quantize.scorers.torch_model import TorchScorer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForCausalLM.from_pretrained(tiny_models["llama"])
    before = record(TorchScorer(model, name="source"), SEQUENCES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    found = compare(before, TorchScorer(model, name="changed"))
    assert found.kl is not None
    assert found.kl.mean > 1e-4
    assert found.agreement is not None
    assert found.agreement < 1
    assert (found.source, found.quantized) == ("source", "changed")


def test_a_sequence_longer_than_the_model_takes_is_refused(checkpoint: Path) -> None:
    with pytest.raises(LimitError, match=r"too long for llama.*513 tokens.*at most 512"):
        record(open_scorer(checkpoint), [np.ones(513, np.int64)])


def test_what_is_no_model_is_refused_by_name(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(ModelError, match="neither a model nor a checkpoint"):
        open_scorer(tmp_path)
    with pytest.raises(ModelError, match="doesn't exist"):
        open_scorer(tmp_path / "absent")
    config = json.loads((checkpoint / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architecture": "Unknown"}))
    (tmp_path / "rank0.safetensors").write_bytes((checkpoint / "rank0.safetensors").read_bytes())
    with pytest.raises(ArtifactError, match="architecture 'Unknown'"):
        open_scorer(tmp_path)


class _Server(ThreadingHTTPServer):
    """A completions server in the manner of vLLM, over a scorer; `takes` is what it accepts."""

    def __init__(self, scorer: CheckpointScorer, tokenizer: Tokenizer, takes: set[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scorer, self.tokenizer, self.takes = scorer, tokenizer, takes
        self.lock, self.bodies = threading.Lock(), list[dict[str, Any]]()


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self._answer(200, {"data": [{"id": "tiny"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        if self.headers["Authorization"] != "Bearer secret":
            self._answer(401, {"error": {"message": "no key"}})
            return
        asked = body.keys() - {"model", "prompt", "max_tokens", "temperature"}
        asked |= {"ids"} if isinstance(body["prompt"], list) else set()
        if refused := asked - self.server.takes:
            self._answer(400, {"error": {"message": f"no {sorted(refused)[0]}"}})
            return
        prompt = body["prompt"]
        if isinstance(prompt, str):
            prompt = self.server.tokenizer.encode(prompt).ids
        with self.server.lock:
            logits = self.server.scorer.logits(np.array(prompt)).astype(np.float64)
        best = logits.argmax(-1)
        name = self._named if body.get("return_tokens_as_token_ids") else self._text
        choice: dict[str, Any] = {"text": self._text(int(best[-1]))}
        if body.get("echo"):
            norm = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            each: list[Any] = [None]
            tops: list[Any] = [None]
            for row, (token, top) in enumerate(zip([*prompt[1:], best[-1]], best, strict=True)):
                each.append(norm[row, token])
                tops.append({name(int(token)): norm[row, token], name(int(top)): norm[row, top]})
            choice["logprobs"] = {"token_logprobs": each, "top_logprobs": tops}
        self._answer(200, {"choices": [choice]})

    @staticmethod
    def _named(token: int) -> str:
        return f"token_id:{token}"

    def _text(self, token: int) -> str:
        text: str = self.server.tokenizer.decode([token], skip_special_tokens=False)
        return text

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving(checkpoint: Path, *takes: str) -> Iterator[tuple[_Server, EndpointPredictor]]:
    """A server of the checkpoint that takes these parameters, and a predictor for it."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    server = _Server(CheckpointScorer(checkpoint), tokenizer, set(takes))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        yield server, EndpointPredictor(url, tokenizer, key="secret")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


ECHO = ("ids", "echo", "logprobs")
SHOWN = ("ignore_eos", "skip_special_tokens")


@pytest.mark.parametrize("takes", [(*ECHO, "return_tokens_as_token_ids"), ECHO])
def test_an_endpoint_that_echoes_gives_perplexity_and_agreement(
    checkpoint: Path, takes: tuple[str, ...]
) -> None:
    with serving(checkpoint, *takes) as (server, endpoint):
        found = evaluate(CheckpointScorer(checkpoint), endpoint, SEQUENCES)
        answered = [body for body in server.bodies if server.takes >= body.keys() & {*takes}]
    assert endpoint.name == "tiny"
    assert found.quantized_perplexity == pytest.approx(found.source_perplexity, rel=1e-6)
    assert found.agreement == 1
    assert found.agreement_positions > 0.5 * found.positions
    assert found.kl is None
    assert found.missing == {"kl": "an endpoint doesn't give the logits of the whole vocabulary"}
    assert answered


@pytest.mark.parametrize("takes", [("ids", *SHOWN), ("ids",), ("add_special_tokens", *SHOWN), ()])
def test_an_endpoint_that_does_not_echo_gives_agreement_only_and_says_why(
    checkpoint: Path, takes: tuple[str, ...]
) -> None:
    text = Tokenizer.from_file(str(checkpoint / "tokenizer.json")).encode("A plain text " * 9)
    sequences = [np.array(text.ids, np.int64)]
    with serving(checkpoint, *takes) as (_, endpoint):
        found = evaluate(CheckpointScorer(checkpoint), endpoint, sequences)
    assert found.quantized_perplexity is None
    assert "the server says: no echo" in found.missing["quantized_perplexity"]
    assert found.agreement == 1
    assert 0 < found.agreement_positions <= POSITIONS


def test_an_endpoint_can_be_the_source(checkpoint: Path) -> None:
    with serving(checkpoint, *ECHO) as (_, endpoint):
        found = evaluate(endpoint, CheckpointScorer(checkpoint), SEQUENCES)
    assert found.perplexity_increase == pytest.approx(0, abs=1e-6)
    assert found.kl is None
    assert "kl" in found.missing


def test_an_endpoint_that_refuses_or_is_away_is_an_error_with_its_words(checkpoint: Path) -> None:
    with serving(checkpoint) as (server, endpoint):
        endpoint._headers.pop("Authorization")
        with pytest.raises(RequestError, match="401 no key"):
            record(endpoint, SEQUENCES)
        url = f"http://127.0.0.1:{server.server_port}"
    with pytest.raises(RequestError, match="doesn't answer"):
        EndpointPredictor(url, Tokenizer.from_file(str(checkpoint / "tokenizer.json")))
