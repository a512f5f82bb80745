"""How the proxy serves, as options of a command: one table of flags and where their values go."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any, cast

import click

from server.text.parser import REASONING_PARSERS, TOOL_PARSERS
from trtbuild.options import COUNT, FILE, FOLDER, SECONDS, SECONDS_OR_NONE, F

KEYS_VARIABLE = "TRTBUILD_API_KEYS"
"""Keys themselves, where a file is too much: KEY or NAME=KEY, divided by commas."""


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """What was chosen: fields of ServerConfig, fields of every ServedModel, further names."""

    config: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """One option. Its value goes to `field` of ServerConfig, or of every ServedModel.

    Nothing is said where it isn't given: the defaults are those classes'.
    """

    flag: str
    field: str
    help: str
    type: Any = None
    metavar: str | None = None
    of_model: bool = False
    several: bool = False
    is_flag: bool = False

    @property
    def parameter(self) -> str:
        """What click calls it."""
        return self.flag.partition("/")[0].lstrip("-").replace("-", "_")

    def option(self) -> Callable[[F], F]:
        """It as click's."""
        if self.is_flag:
            return click.option(self.flag, self.parameter, default=None, help=self.help)
        return click.option(
            self.flag,
            self.parameter,
            type=self.type,
            multiple=self.several,
            metavar=self.metavar,
            help=self.help,
        )


TABLE = (
    Row(
        flag="--workers",
        field="workers",
        type=click.IntRange(1, 64),
        help="Processes of the proxy, which share its port.  [default: 1]",
    ),
    Row(
        flag="--api-keys",
        field="api_keys_file",
        type=FILE,
        help="File of API keys, as trtbuild keys new writes them; read again on SIGHUP. Without"
        f" any, and without {KEYS_VARIABLE} (KEY or NAME=KEY, divided by commas), the endpoint is"
        " open to all.",
    ),
    Row(
        flag="--open-metrics/--closed-metrics",
        field="open_metrics",
        is_flag=True,
        help="Whether /metrics asks for no key, or for an admin's.  [default: open]",
    ),
    Row(
        flag="--cors-origin",
        field="cors_origins",
        several=True,
        help="Origin whose pages may call the endpoint, or *; may be given several times.",
    ),
    Row(
        flag="--max-in-flight",
        field="max_in_flight",
        type=COUNT,
        help="Requests that are answered at once.  [default: 2048]",
    ),
    Row(
        flag="--max-waiting",
        field="max_waiting",
        type=click.IntRange(min=0),
        help="Requests that wait for their turn; more are told to come back.  [default: 2048]",
    ),
    Row(
        flag="--max-connections",
        field="max_connections",
        type=COUNT,
        help="Connections of clients to one process of the proxy, with and without requests."
        "  [default: 16384]",
    ),
    Row(
        flag="--max-prompts",
        field="max_prompts",
        type=COUNT,
        help="Prompts of one request for completions.  [default: 128]",
    ),
    Row(
        flag="--max-choices",
        field="max_choices",
        type=COUNT,
        help="Answers to one request: its prompts times n, or best_of.  [default: 128]",
    ),
    Row(
        flag="--max-inputs",
        field="max_inputs",
        type=COUNT,
        help="Texts of one request for embeddings.  [default: 2048]",
    ),
    Row(
        flag="--max-header-bytes",
        field="max_header_bytes",
        type=COUNT,
        help="Bytes of a request's line and headers.  [default: 32 KiB]",
    ),
    Row(
        flag="--max-body-bytes",
        field="max_body_bytes",
        type=COUNT,
        help="Bytes of a request's body.  [default: 16 MiB]",
    ),
    Row(
        flag="--max-held-bytes",
        field="max_held_bytes",
        type=COUNT,
        help="Bytes of all bodies that one process of the proxy has at once; no fewer than of one."
        "  [default: 512 MiB]",
    ),
    Row(
        flag="--header-timeout",
        field="header_seconds",
        type=SECONDS,
        help="Seconds that a client may take to send a request's line and headers.  [default: 10]",
    ),
    Row(
        flag="--body-timeout",
        field="body_seconds",
        type=SECONDS,
        help="Seconds that a client may take to send a request's body.  [default: 60]",
    ),
    Row(
        flag="--keep-alive-timeout",
        field="keep_alive_seconds",
        type=COUNT,
        help="Seconds that a connection may be silent between two requests.  [default: 75]",
    ),
    Row(
        flag="--request-timeout",
        field="request_timeout_seconds",
        type=SECONDS,
        help="Seconds that a request may take; clients ask for less with X-Request-Timeout. By"
        " default as many as it takes.",
    ),
    Row(
        flag="--drain-timeout",
        field="drain_seconds",
        type=SECONDS,
        help="Seconds that running requests have to finish in after SIGTERM.  [default: 30]",
    ),
    Row(
        flag="--drain-notice",
        field="drain_notice_seconds",
        type=SECONDS_OR_NONE,
        help="Seconds before the drain in which /health already says no but connections are still"
        " taken.  [default: 0]",
    ),
    Row(
        flag="--stall-timeout",
        field="stall_seconds",
        type=SECONDS,
        help="Seconds without a word from Triton, its queue included, after which a request is"
        " given up.  [default: 300]",
    ),
    Row(
        flag="--reader-timeout",
        field="reader_seconds",
        type=SECONDS,
        help="Seconds without reading its stream after which a client is gone.  [default: 60]",
    ),
    Row(
        flag="--comment-interval",
        field="comment_seconds",
        type=SECONDS,
        help="Seconds after which a silent stream gets a comment, for what closes silent"
        " connections on the way. By default none.",
    ),
    Row(
        flag="--chat-template",
        field="chat_template",
        of_model=True,
        help="Chat template for all requests: a file, or the name of one of the model's own.",
    ),
    Row(
        flag="--tool-parser",
        field="tool_parser",
        of_model=True,
        type=click.Choice(TOOL_PARSERS),
        metavar="NAME",
        help="How tool calls are read from answers; by default (auto) as the chat template writes"
        f" them. One of {', '.join(TOOL_PARSERS)}.",
    ),
    Row(
        flag="--reasoning-parser",
        field="reasoning_parser",
        of_model=True,
        type=click.Choice(REASONING_PARSERS),
        metavar="NAME",
        help="How reasoning is told from the answer; by default (auto) by the chat template. One of"
        f" {', '.join(REASONING_PARSERS)}.",
    ),
    Row(
        flag="--default-sampling",
        field="default_sampling",
        of_model=True,
        type=click.Choice(["model", "openai"]),
        help="Whose sampling, and length of an answer, where a request asks for none: the model's"
        " generation_config.json (max_new_tokens), or OpenAI's.  [default: model]",
    ),
    Row(
        flag="--metrics-compat",
        field="metrics_compat",
        type=click.Choice(["vllm"]),
        help="Have the metrics under vLLM's names too.",
    ),
    Row(
        flag="--triton-metrics/--no-triton-metrics",
        field="metrics_with_triton",
        is_flag=True,
        help="Whether /metrics has Triton's own too.",
    ),
    Row(
        flag="--triton-metrics-url",
        field="triton_metrics_urls",
        several=True,
        help="Where a Triton's metrics are, as KV cache use is read from; with --only proxy, each.",
    ),
    Row(
        flag="--otlp-endpoint",
        field="otlp_traces_endpoint",
        help="URL that OpenTelemetry traces are sent to; needs the extra otel.",
    ),
    Row(
        flag="--access-log",
        field="access_log",
        type=click.Path(path_type=Path),
        help="File of a JSON line for each request, without its text; - is standard error.",
    ),
    Row(
        flag="--log-prompts/--no-log-prompts",
        field="log_prompts",
        is_flag=True,
        help="Have prompts and answers in the access log and in traces.",
    ),
    Row(
        flag="--record",
        field="record",
        type=click.Path(dir_okay=False, writable=True, path_type=Path),
        help="File that each request's load is recorded in, without its text, as a line of JSON"
        " that aiperf (mooncake_trace) and vllm bench (timed_trace) replay; goes on in one that is"
        " there.",
    ),
    Row(
        flag="--record-content/--no-record-content",
        field="record_content",
        is_flag=True,
        help="Have requests themselves in the recording, as they came.",
    ),
    Row(
        flag="--record-max-bytes",
        field="record_max_bytes",
        type=COUNT,
        help="Bytes of the recording, after which it ends.  [default: 1024 MiB]",
    ),
    Row(
        flag="--response-store",
        field="responses_dir",
        type=FOLDER,
        help="Folder that keeps the answers of /v1/responses; by default they are forgotten when"
        " the proxy ends.",
    ),
    Row(
        flag="--response-store-bytes",
        field="responses_max_bytes",
        type=COUNT,
        help="Bytes of all answers that are kept; of more the oldest go.  [default: 256 MiB]",
    ),
    Row(
        flag="--response-store-age",
        field="responses_max_age_seconds",
        type=SECONDS,
        help="Seconds that an answer is kept.  [default: 30 days]",
    ),
)
_OF_ALL = {"--workers": "--proxy-workers"}
NAMES = (*(row.parameter for row in TABLE), "alias")
"""The parameters that the options come from."""


def _named(_: click.Context, __: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    """NAME=MODEL, several times."""
    for pair in pairs:
        if not all(pair.partition("=")):
            raise click.BadParameter(f"{pair!r} is not NAME=MODEL")
    return {name: model for name, _, model in (pair.partition("=") for pair in pairs)}


_ALIAS = click.option(
    "--alias",
    multiple=True,
    metavar="NAME=MODEL",
    callback=_named,
    help="Another name for a model or an adapter; may be given several times.",
)


def server(function: F, table: Sequence[Row] = TABLE) -> F:
    """Add the options; the command gets them as `server`, a ServerOptions."""

    @wraps(function)
    def command(*args: Any, alias: dict[str, str], **given: Any) -> Any:
        own = {row: given.pop(row.parameter) for row in table}
        return function(*args, server=_gathered(own, alias), **given)

    for option in reversed((*(row.option() for row in table), _ALIAS)):
        command = option(command)
    return cast(F, command)


def server_of_all(function: F) -> F:
    """The same for a command that builds too, whose --workers are a build's."""
    renamed = [replace(row, flag=_OF_ALL.get(row.flag, row.flag)) for row in TABLE]
    return server(function, renamed)


def _gathered(given: Mapping[Row, Any], aliases: dict[str, str]) -> ServerOptions:
    chosen = {row: value for row, value in given.items() if value is not None and value != ()}
    config = {row.field: value for row, value in chosen.items() if not row.of_model}
    _check_room(config)
    _check_recording(config)
    if (keys := os.environ.get(KEYS_VARIABLE)) is not None:
        from server.auth.keys import from_environment

        config["api_keys"] = from_environment(keys)
    return ServerOptions(
        config=config,
        model={row.field: value for row, value in chosen.items() if row.of_model},
        aliases=aliases,
    )


def _check_recording(config: Mapping[str, Any]) -> None:
    """Refuse at once what the proxy would refuse when Triton has started."""
    path = config.get("record")
    if path is None and (config.get("record_content") or "record_max_bytes" in config):
        raise click.UsageError("--record-content and --record-max-bytes need --record FILE.")
    if path is None:
        return
    if not os.access(path.parent, os.W_OK):
        raise click.UsageError(f"--record {path}: the folder isn't there, or can't be written.")
    from server.telemetry.recorder import begun

    begun(path)


def _check_room(config: Mapping[str, Any]) -> None:
    from server.config import ServerConfig

    held, body = (
        config.get(name, getattr(ServerConfig, name))
        for name in ("max_held_bytes", "max_body_bytes")
    )
    if held < body:
        raise click.UsageError(
            f"--max-held-bytes {held} is less than --max-body-bytes {body}: a body of that size"
            " would never be taken."
        )
