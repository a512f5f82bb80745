"""How Triton runs, as options of a command; gathered into one TritonOptions."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, cast

import click
from click.core import ParameterSource

from trtbuild.options import FILE, FILE_TO_WRITE, SECONDS, F

if TYPE_CHECKING:
    from trtbuild.launching import TritonOptions

_PORT = click.IntRange(1, 65535)
log = click.option(
    "--log",
    type=FILE_TO_WRITE,
    help="Triton's log, with the access to it beside; by default beside the repository.",
)
_OPTIONS = (
    *(
        click.option(
            f"--{what.lower()}-port",
            type=_PORT,
            help=f"Port of Triton's {what} endpoint: any free, with --only triton {port}.",
        )
        for what, port in (("HTTP", 8000), ("gRPC", 8001), ("metrics", 8002))
    ),
    log,
    click.option(
        "--log-verbose",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="How much Triton says in its log.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(["default", "ISO8601"]),
        default="default",
        show_default=True,
        help="How the lines of Triton's log begin.",
    ),
    click.option(
        "--start-timeout",
        type=SECONDS,
        default=300,
        show_default=True,
        help="Seconds that Triton may take to load its models.",
    ),
    click.option(
        "--probe-interval",
        type=SECONDS,
        help="Seconds after which each engine is asked for a token; one that gives none, hung or"
        " dead, is started again. By default never.",
    ),
    click.option(
        "--probe-timeout",
        type=SECONDS,
        default=60,
        show_default=True,
        help="Seconds that a probe may take, which waits in the queue as others do.",
    ),
    click.option(
        "--restrict-admin/--open-admin",
        default=None,
        help="Whether Triton's admin endpoints (models, shared memory, log, trace) want a key,"
        " which is made anew and kept beside the log; by default where others than this machine"
        " reach it.",
    ),
    click.option(
        "--share-gpus", is_flag=True, help="Let several engines, or instances, run on one GPU."
    ),
    click.option("--tls-cert", type=FILE, help="Certificate (PEM) of Triton's gRPC endpoint."),
    click.option("--tls-key", type=FILE, help="Key (PEM) of --tls-cert."),
    click.option(
        "--tls-client-ca",
        type=FILE,
        help="Whose certificates its clients must show (mTLS). ensemble and tensorrt_llm_bls show"
        " --tls-cert: it must be of that authority too.",
    ),
)
_RENAMED = {
    "start_timeout": "start_timeout_s",
    "probe_interval": "probe_interval_s",
    "probe_timeout": "probe_timeout_s",
}
NAMES = (
    "http_port",
    "grpc_port",
    "metrics_port",
    "log",
    "log_verbose",
    "log_format",
    "start_timeout",
    "probe_interval",
    "probe_timeout",
    "restrict_admin",
    "share_gpus",
    "tls_cert",
    "tls_key",
    "tls_client_ca",
)
"""The parameters that the options come from."""
TLS = NAMES[-3:]


def triton(function: F) -> F:
    """Add the options; the command gets them as `chosen`, a TritonOptions."""

    @wraps(function)
    def command(*args: Any, **given: Any) -> Any:
        own = {name: given.pop(name) for name in NAMES}
        return function(*args, chosen=_gathered(own), **given)

    for option in reversed(_OPTIONS):
        command = option(command)
    return cast(F, command)


def _gathered(given: dict[str, Any]) -> TritonOptions:
    from triton_repo.launch.security import ServerTls
    from trtbuild.launching import TritonOptions

    source = click.get_current_context().get_parameter_source("probe_timeout")
    if given["probe_interval"] is None and source is ParameterSource.COMMANDLINE:
        raise click.UsageError("--probe-timeout has no meaning without --probe-interval.")
    certificate, key, client_ca = (given.pop(name) for name in TLS)
    if (certificate is None) != (key is None) or (client_ca and not certificate):
        raise click.UsageError("TLS needs --tls-cert and --tls-key; --tls-client-ca is beside.")
    tls = ServerTls(certificate=certificate, key=key, client_ca=client_ca) if certificate else None
    return TritonOptions(
        tls=tls, **{_RENAMED.get(name, name): value for name, value in given.items()}
    )
