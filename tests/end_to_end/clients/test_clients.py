"""Promise: the clients that people use get, by their own ways of asking, what the endpoint gives.

SmolLM2 and MiniLM answer, on a real Triton; where a model must call functions by itself, or the
engine must fail, a scripted one answers behind the same proxy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client_scripts import CLIENTS
from scripted_proxy import (
    BEGUN,
    FAILURES,
    KEY,
    NARROW_KEY,
    RETRY_AFTER_SECONDS,
    SUNNY,
    scripted_proxy,
)
from stack import serving

from builder.convert import ConvertOptions, convert
from builder.limits import LimitOptions
from builder.targets import openvino
from triton_repo.layout import write_parts
from triton_repo.parts import Part

pytestmark = [pytest.mark.triton, pytest.mark.timeout(900)]

PARIS = "The capital of France is Paris."
CITIES = ("Paris", "London", "Rome")
Report = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def live(
    smollm2_gguf: Path, minilm: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A language model and an encoder in one repository, served; its base URL."""
    work = tmp_path_factory.mktemp("clients")
    llm = _part(work / "smollm2", smollm2_gguf, max_seq_len=2048)
    parts = [llm, _part(work / "minilm", minilm)]
    write_parts(parts, work / "repository")
    with serving(work / "repository") as stack:
        yield f"{stack.url}/v1"


def _part(work: Path, model: Path, **limits: int) -> Part:
    convert(model, work / "checkpoint", options=ConvertOptions(dtype="float32"))
    openvino.build(work / "checkpoint", work / "engine", options=LimitOptions(**limits))
    return Part(engine=work / "engine", name=work.name)


@pytest.fixture(scope="module")
def report(live: str, tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """What a client saw, which it is asked once."""
    reports: dict[str, dict[str, Any]] = {}

    def ask(client: str) -> dict[str, Any]:
        if client not in reports:
            with scripted_proxy(tiny_tokenizer, tmp_path_factory.mktemp(client)) as scripted:
                keys = {"key": KEY, "narrow_key": NARROW_KEY}
                seen = CLIENTS[client].run(live=live, scripted=scripted.url, **keys)
            reports[client] = {**seen, "asked": scripted.asked}
        return reports[client]

    return ask


def of(*features: str, but: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """Runs a test for each client and feature that there is; `but` are clients without it."""
    rows = [
        pytest.param(client, feature, marks=() if told.own else pytest.mark.clients)
        for client, told in CLIENTS.items()
        if client not in but
        for feature in features
    ]
    return pytest.mark.parametrize(("client", "feature"), rows)


def saw(report: Report, client: str, feature: str) -> Any:
    """What a client saw of a feature; its own error is the test's."""
    seen = report(client)[feature]
    failed = seen.get("failed") if isinstance(seen, dict) else None
    assert not failed, failed
    return seen


@of("chat", "stream", but=("instructor", "agents"))
def test_an_answer_comes_whole_and_in_a_stream(report: Report, client: str, feature: str) -> None:
    seen = saw(report, client, feature)
    assert seen["text"] == PARIS
    assert seen["finish"] == "stop"
    # the prompt's tokens, those of the answer and its end
    assert seen["total"] == saw(report, client, "chat")["total"] > 8


@of("responses", "responses_stream", but=("instructor",))
def test_responses_answer_too(report: Report, client: str, feature: str) -> None:
    assert saw(report, client, feature)["text"] == PARIS


@pytest.mark.clients
@pytest.mark.parametrize("feature", ["chat", "stream", "responses", "responses_stream"])
def test_an_agent_answers(report: Report, feature: str) -> None:
    seen = saw(report, "agents", feature)
    assert seen["text"] == seen.get("whole", PARIS) == PARIS


@of("responses", but=("langchain", "litellm", "instructor", "agents"))
def test_a_response_is_kept_for_later_turns(report: Report, client: str, feature: str) -> None:
    seen = saw(report, client, feature)
    assert seen["kept"]
    assert seen["roles"] == ["user", "assistant", "user"]
    assert seen["deleted"] == {"error": "NotFoundError", "status": 404}


@of("responses_stream", but=("langchain", "litellm", "instructor", "agents"))
def test_a_streamed_response_has_its_events(report: Report, client: str, feature: str) -> None:
    seen = saw(report, client, feature)
    assert (seen["first"], seen["last"]) == ("response.created", "response.completed")


@of("tool_auto", "tool_auto_stream", but=("instructor", "agents"))
def test_a_model_calls_several_functions(report: Report, client: str, feature: str) -> None:
    seen = saw(report, client, feature)
    assert calls(seen) == [("get_weather", {"city": city}) for city in ("Paris", "London")]
    assert seen["finish"] == "tool_calls"


@of("tool_required", "tool_named", but=("instructor", "agents"))
def test_a_call_is_forced_from_any_model(report: Report, client: str, feature: str) -> None:
    [(name, arguments)] = calls(saw(report, client, feature))
    assert name == "get_weather"
    assert arguments["city"] in CITIES


@of("tool_result", but=("instructor",))
def test_a_calls_result_is_answered_with(report: Report, client: str, feature: str) -> None:
    assert saw(report, client, feature)["text"] == SUNNY


@of("responses_tools", but=("instructor", "agents"))
def test_responses_call_functions(report: Report, client: str, feature: str) -> None:
    seen = saw(report, client, feature)
    assert set(seen["forced"]) == {"get_weather"}
    name, arguments = seen["call"]
    assert calls({"calls": [(name, arguments)]}) == [("get_weather", {"city": "Paris"})]
    assert seen["text"] == SUNNY


@pytest.mark.clients
@pytest.mark.parametrize("feature", ["tool_result", "responses_tools"])
def test_an_agent_uses_its_tool(report: Report, feature: str) -> None:
    seen = saw(report, "agents", feature)
    assert seen["items"] == ["tool_call_item", "tool_call_output_item", "message_output_item"]
    assert seen["text"] == SUNNY


@of("tool_loop", but=("instructor", "agents"))
def test_a_conversation_has_several_rounds_of_calls(
    report: Report, client: str, feature: str
) -> None:
    assert saw(report, client, feature) == {"cities": ["Paris", "London"], "text": SUNNY}


@of("responses_tool_loop", but=("openai-node", "langchain", "litellm", "instructor", "agents"))
def test_so_has_one_that_the_endpoint_keeps(report: Report, client: str, feature: str) -> None:
    test_a_conversation_has_several_rounds_of_calls(report, client, feature)


CALLED = ["tool_call_item", "tool_call_output_item"]


@pytest.mark.clients
@pytest.mark.parametrize(
    ("feature", "items"),
    [
        ("tool_loop", [*CALLED, *CALLED]),
        ("handoff", ["handoff_call_item", "handoff_output_item", *CALLED]),
    ],
)
def test_agents_go_on_until_they_can_answer(report: Report, feature: str, items: list[str]) -> None:
    seen = saw(report, "agents", feature)
    assert [run["items"] for run in seen] == [[*items, "message_output_item"]] * 2
    assert [run["text"] for run in seen] == [SUNNY] * 2
    assert {run.get("last", "weather") for run in seen} == {"weather"}


@pytest.mark.clients
def test_an_agents_steps_come_in_its_stream(report: Report) -> None:
    steps = ["tool_called", "tool_output", "message_output_created"]
    expected = {"events": steps, "text": SUNNY}
    assert saw(report, "agents", "tool_stream") == [expected] * 2


@pytest.mark.clients
def test_an_agents_later_turn_has_the_earlier_one(report: Report) -> None:
    first, stored, sent = saw(report, "agents", "conversation")
    assert stored == sent > first


@pytest.mark.clients
def test_langchains_events_tell_of_text_and_calls(report: Report) -> None:
    seen = saw(report, "langchain", "events")
    assert seen["text"] == seen["whole"] == PARIS
    assert calls(seen) == [("get_weather", {"city": city}) for city in ("Paris", "London")]


@of("schema")
def test_an_answer_is_an_object_of_the_clients_class(
    report: Report, client: str, feature: str
) -> None:
    cities = saw(report, client, feature)
    assert cities
    for city in cities:
        assert city["name"] in CITIES
        assert isinstance(city["capital"], bool)


@of("responses_schema", but=("litellm", "instructor", "agents"))
def test_a_response_is_an_object_too(report: Report, client: str, feature: str) -> None:
    assert all(city["name"] in CITIES for city in saw(report, client, feature))


@pytest.mark.clients
@pytest.mark.parametrize("feature", ["stream", "nested"])
def test_instructor_gets_partial_and_nested_objects(report: Report, feature: str) -> None:
    cities = saw(report, "instructor", feature)
    assert 1 <= len(cities) <= 2
    assert all(city["name"] in CITIES for city in cities)


@pytest.mark.clients
def test_instructor_asks_again_for_an_object_that_it_refuses(report: Report) -> None:
    seen = saw(report, "instructor", "reasked")
    assert seen["times"] == 2
    assert seen["city"]["name"] in CITIES


@of("log_probs", but=("instructor", "agents"))
def test_log_probs_come_with_alternatives(report: Report, client: str, feature: str) -> None:
    assert saw(report, client, feature) == {"text": PARIS, "tops": [3], "greedy": True}


@of("several", but=("instructor", "agents"))
def test_n_answers_come(report: Report, client: str, feature: str) -> None:
    assert saw(report, client, feature) == [0, 1, 2]


@of("embeddings", but=("instructor", "agents"))
def test_texts_that_mean_the_same_lie_close(report: Report, client: str, feature: str) -> None:
    seen = saw(report, client, feature)
    cat, kitten, market = (np.array(vector) for vector in seen["vectors"])
    assert cat.shape == (384,)
    assert cat @ kitten > 0.6 > 0.3 > cat @ market
    assert seen.get("alike", True)


@of("completions", but=("openai-node", "langchain", "litellm", "instructor", "agents"))
def test_completions_of_a_list_come_in_its_order(report: Report, client: str, feature: str) -> None:
    begins = ["One", "One", "Two", "Two"]
    assert saw(report, client, feature) == [
        {"index": index, "begins": text, "offset": 0} for index, text in enumerate(begins)
    ]


@of("listing", but=("openai-node", "langchain", "litellm", "instructor", "agents"))
def test_models_are_listed(report: Report, client: str, feature: str) -> None:
    assert saw(report, client, feature) == {"names": ["smollm2", "minilm"], "one": "smollm2"}


ERRORS = {
    "model": ("NotFoundError", 404),
    "field": ("BadRequestError", 400),
    "long": ("BadRequestError", 400),
    "route": ("NotFoundError", 404),
    "key": ("AuthenticationError", 401),
    "share": ("PermissionDeniedError", 403),
    "full": ("RateLimitError", 429),
    "away": ("InternalServerError", 503),
}
"""What is wrong → the class that OpenAI's clients have for it, and the HTTP status."""
OWN_CLASSES = {
    "langchain": {
        "model": "OpenAIModelNotFoundError",
        "field": "OpenAIInvalidRequestError",
        "long": "OpenAIContextOverflowError",
        "key": "OpenAIAuthenticationError",
        "share": "OpenAIPermissionDeniedError",
        "full": "OpenAIRateLimitError",
        "away": "OpenAIAPIError",
    },
    "litellm": {
        "long": "ContextWindowExceededError",
        "share": "APIError",
        "away": "ServiceUnavailableError",
    },
}


@of("errors")
def test_an_error_is_of_the_right_class(report: Report, client: str, feature: str) -> None:
    for what, seen in saw(report, client, feature).items():
        name, status = ERRORS[what]
        name = OWN_CLASSES.get(client, {}).get(what, name)
        assert seen == {"error": name, "status": status}, what


@of("faults", but=("instructor", "agents"))
def test_a_fault_is_of_the_right_class(report: Report, client: str, feature: str) -> None:
    test_an_error_is_of_the_right_class(report, client, feature)


@of("retries", but=("instructor",))
def test_a_client_tries_again_when_it_was_told_to(
    report: Report, client: str, feature: str
) -> None:
    assert saw(report, client, feature) == [SUNNY, SUNNY]
    asked = report(client)["asked"]
    for model, seconds in (("overloaded", RETRY_AFTER_SECONDS), ("unready", 1)):
        times = asked[model]
        assert len(times) == FAILURES + 1
        pauses = [later - earlier for earlier, later in pairwise(times)]
        # sooner than that they come back only where nothing is said
        assert min(pauses) >= seconds


@pytest.mark.clients
def test_litellms_router_falls_back_on_another_model(report: Report) -> None:
    assert saw(report, "litellm", "router") == [SUNNY, SUNNY]
    assert report("litellm")["asked"]["always-unready"]
    assert report("litellm")["asked"]["always-overloaded"]


@of("raw", but=("litellm", "instructor", "agents"))
def test_a_client_gets_at_headers_and_lines(report: Report, client: str, feature: str) -> None:
    seen = saw(report, client, feature)
    assert seen["ids"] == ["ours-7", "ours-7"]
    assert seen["time"].isdecimal()
    assert seen["text"] == SUNNY
    assert seen.get("last", "data: [DONE]") == "data: [DONE]"


@of("timeout", but=("instructor", "agents"))
def test_a_client_that_is_out_of_patience_frees_its_place(
    report: Report, client: str, feature: str
) -> None:
    seen = saw(report, client, feature)
    assert "Timeout" in seen["error"]
    assert seen["freed"]


@of("left", but=("langchain", "litellm", "instructor", "agents"))
def test_a_client_that_leaves_a_stream_frees_its_place(
    report: Report, client: str, feature: str
) -> None:
    seen = saw(report, client, feature)
    assert BEGUN.startswith(seen["text"])
    assert seen["freed"]


@of("broken", but=("instructor", "agents"))
def test_a_stream_comes_in_pieces_and_breaks_off_with_an_error(
    report: Report, client: str, feature: str
) -> None:
    seen = saw(report, client, feature)
    assert "".join(seen["pieces"]) == BEGUN
    assert sum(map(bool, seen["pieces"])) > 1
    assert "it broke" in seen["error"]
    assert seen.get("code", "internal_error") == "internal_error"


def calls(seen: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Names and arguments, which clients give as JSON or read."""
    return [
        (name, json.loads(arguments) if isinstance(arguments, str) else arguments)
        for name, arguments in seen["calls"]
    ]
