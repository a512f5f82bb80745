"""Promise: keys are read from where they are kept, and each has its share and no more, in all
workers together."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.datastructures import Headers

from server.auth.gate import Gate
from server.auth.key import ApiKey, digest, new_key
from server.auth.keys import Keys, from_environment, read_file
from server.auth.ledger import Ledger
from server.config import ServedModel, ServerConfig
from server.edge.call import Call
from server.errors import AuthenticationError, UnusableKeysError


def key(name: str = "bob", **values: object) -> ApiKey:
    return ApiKey(**{"name": name, "sha256": digest(name), **values})  # type: ignore[arg-type]


def write(folder: Path, text: str) -> Path:
    path = folder / "keys.toml"
    path.write_text(text)
    return path


def test_a_file_of_keys_says_who_may_do_what(tmp_path: Path) -> None:
    secret = new_key()
    text = f'[[keys]]\nname = "bob"\nsha256 = "{digest(secret)}"\nmodels = ["a", "b"]\n'
    limits = "requests_per_minute = 5\ntokens_per_minute = 100\nmax_in_flight = 2\n"
    boss = f'[[keys]]\nname = "boss"\nsha256 = "{digest("x")}"\nadmin = true\n'
    keys = Keys(read_file(write(tmp_path, text + limits + boss)))
    found = keys.find(secret)
    assert found is not None
    assert (found.name, found.models, found.admin) == ("bob", {"a", "b"}, False)
    assert (found.requests_per_minute, found.tokens_per_minute, found.max_in_flight) == (5, 100, 2)
    assert found.may_use("a")
    assert not found.may_use("c")
    assert keys.find(secret + "x") is None
    assert keys.find(digest(secret)) is None, "what the file holds opens nothing"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("keys = 1", "doesn't hold API keys"),
        ("[[keyz]]\nname = 'a'", "doesn't hold API keys"),
        ("[[keys]]\nname = 'a'", "hasn't the fields"),
        (f"[[keys]]\nname = 'a'\nsha256 = '{digest('a')}'\nmodel = 'x'", "hasn't the fields"),
        ("[[keys]]\nname = 'a'\nsha256 = 'sk-plain'", "wrong values; found sha256"),
        (f"[[keys]]\nname = ''\nsha256 = '{digest('a')}'\nadmin = 1", "found name, admin"),
        (f"[[keys]]\nname = 'a'\nsha256 = '{digest('a')}'\nmax_in_flight = 0", "max_in_flight"),
        ("[[keys", "can't read"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_the_reason(
    tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(UnusableKeysError, match=says):
        read_file(write(tmp_path, text))


def test_an_empty_file_has_no_keys_and_a_table_has_its_bounds(tmp_path: Path) -> None:
    assert read_file(write(tmp_path, "")) == ()
    many = [key(str(number)) for number in range(600)]
    with pytest.raises(UnusableKeysError, match="more than 512"):
        Keys(many)


def test_two_keys_of_one_name_are_refused() -> None:
    with pytest.raises(UnusableKeysError, match="one name"):
        Keys([key("a"), key("a", sha256=digest("b"))])


def test_the_environment_has_keys_with_and_without_names() -> None:
    keys = from_environment(" sk-one, bob=sk-two==\nsk-three, ")
    assert [each.sha256 for each in keys] == [digest(f"sk-{n}") for n in ("one", "two==", "three")]
    named = {each.name: each.sha256 for each in from_environment("sk-three sk-one")}
    assert named == {each.name: each.sha256 for each in (keys[2], keys[0])}, "by themselves"
    assert keys[1].name == "bob"


@pytest.mark.parametrize(
    "text",
    ["", " , ", "bob=", "=key", "q83vEjRWeJCrze8SNFZ4kA==", "aGk=", "sk-one bob=", "k\u00e4se"],
)
def test_a_variable_that_holds_no_key_or_half_a_one_opens_nothing(text: str) -> None:
    with pytest.raises(UnusableKeysError, match="environment") as caught:
        from_environment(text)
    assert "q83v" not in str(caught.value)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The ledger's time, to be set."""
    now = [1000.0]
    monkeypatch.setattr("server.auth.ledger._clock", lambda: now[0])
    return now


def test_requests_are_counted_and_come_back_evenly(clock: list[float]) -> None:
    ledger, bob = Ledger(), key(requests_per_minute=2)
    assert [ledger.take(bob).wait_seconds for _ in range(2)] == [0, 0]
    assert ledger.take(bob).wait_seconds == pytest.approx(30)
    assert ledger.take(key("eve", requests_per_minute=1)).wait_seconds == 0, "another's share"
    clock[0] += 30
    assert ledger.take(bob).wait_seconds == 0
    assert ledger.take(bob).wait_seconds == pytest.approx(30)
    clock[0] += 10_000
    standing = ledger.take(bob)
    assert (standing.requests, standing.tokens) == (1, None), "a minute's share at most"


def test_tokens_are_counted_when_they_are_known(clock: list[float]) -> None:
    ledger, bob = Ledger(), key(tokens_per_minute=60)
    assert ledger.take(bob).tokens == 60
    ledger.give(bob, 100)
    standing = ledger.take(bob)
    assert (standing.tokens, standing.wait_seconds) == (0, pytest.approx(41))
    clock[0] += 41
    assert ledger.take(bob).wait_seconds == 0


def test_workers_share_one_ledger_and_a_dead_ones_requests_are_over(tmp_path: Path) -> None:
    path, bob = tmp_path / "ledger", key(max_in_flight=2, requests_per_minute=100)
    first, second = Ledger(path, worker=0), Ledger(path, worker=1)
    assert first.take(bob).wait_seconds == 0
    assert second.take(bob).requests == pytest.approx(98, abs=0.5)
    assert first.take(bob).wait_seconds > 0
    assert second.take(bob).wait_seconds > 0
    first.close()  # killed with a request in flight, and started again
    again = Ledger(path, worker=0)
    assert again.take(bob).wait_seconds == 0
    assert again.take(bob).wait_seconds > 0
    second.give(bob, 0)
    assert again.take(bob).wait_seconds == 0
    assert second.next_generation() == again.generation == 1
    second.close()
    again.close()


def test_names_that_come_and_go_never_take_each_others_share(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.auth.ledger._ROWS", 8)
    first, second = (Ledger(tmp_path / "ledger", number) for number in range(2))
    busy, bob = key("busy", max_in_flight=1), key(requests_per_minute=1)
    for worker in (first, second):
        worker.take(busy)
        worker.take(bob)
    first.give(bob, 0)
    for number in range(20):
        clock[0] += 0.001
        name = key(f"gone-{number}", requests_per_minute=1)
        assert second.take(name).wait_seconds == 0
        second.give(name, 0)
    assert first.take(busy).wait_seconds == second.take(busy).wait_seconds == 1, "it still runs"
    assert first.take(bob).wait_seconds == 0, "its row was another's, and its bucket is whole"
    assert first.take(bob).wait_seconds > 0
    assert first.take(key("gone-0", requests_per_minute=1)).wait_seconds == 0
    assert second.take(bob).wait_seconds > 0
    first.close()
    second.close()


def test_a_limit_that_a_key_is_given_later_finds_its_share_whole(clock: list[float]) -> None:
    ledger = Ledger()
    for _ in range(100):
        ledger.take(key(tokens_per_minute=1000))
        ledger.give(key(tokens_per_minute=1000), 1)
    standing = ledger.take(key(tokens_per_minute=1000, requests_per_minute=5))
    assert (standing.requests, standing.wait_seconds) == (4, 0)
    for _ in range(3):
        ledger.give(key("eve", max_in_flight=9), 10_000)
    assert ledger.take(key("eve", tokens_per_minute=7)).tokens == 7


def test_a_worker_that_finds_the_file_half_written_reads_it_again(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.auth.gate._RETRY_SECONDS", 0)
    whole = f'[[keys]]\nname = "bob"\nsha256 = "{digest("sk-bob")}"\n'
    path, shared = write(tmp_path, whole), tmp_path / "shared"
    shared.mkdir()
    first, second = (Gate(config(tmp_path, path, shared, number)) for number in range(2))
    write(tmp_path, whole.replace(digest("sk-bob"), digest("sk-new")))
    first.reload()
    write(tmp_path, "[[keys")
    second.enter(Call(request_id="1", arrived=0), bearer("sk-bob"), "api")
    write(tmp_path, whole.replace(digest("sk-bob"), digest("sk-new")))
    second.enter(Call(request_id="2", arrived=0), bearer("sk-new"), "api")
    with pytest.raises(AuthenticationError):
        second.enter(Call(request_id="3", arrived=0), bearer("sk-bob"), "api")
    first.close()
    second.close()


def config(folder: Path, keys: Path, shared: Path, worker: int) -> ServerConfig:
    model = ServedModel(name="m", tokenizer_dir=folder, max_seq_len=1)
    values = {"api_keys_file": keys, "shared_dir": shared, "worker": worker, "workers": 2}
    return ServerConfig(triton_addresses=(), models=(model,), **values)  # type: ignore[arg-type]


def bearer(secret: str) -> Headers:
    return Headers({"authorization": f"Bearer {secret}"})
