"""Promise: alerts ring when they should, and every metric that is asked for is there."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import urllib.request
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import promql_parser as promql
import pytest
import yaml
from containers import COMPOSE, DOCKER, parsed, resolved, run, tool

from builder.convert import ConvertOptions, convert
from builder.limits import LimitOptions
from builder.targets.openvino import build
from server.backend.base import Perf
from server.telemetry import Metrics, RequestMeter
from server.telemetry.engine import TritonMetrics
from server.telemetry.instruments import ERRORS, INSTRUMENTS
from server.telemetry.tally import Tally
from triton_repo.launch.triton import LaunchConfig, Triton
from triton_repo.layout import write_repository

PROMETHEUS = DOCKER / "prometheus"
DASHBOARD: dict[str, Any] = json.loads(
    (DOCKER / "grafana" / "dashboards" / "trtbuild.json").read_text()
)
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ALERTS = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]

# NVIDIA's C++ backend, from its source custom_metrics_reporter.cc: name → the label of its own and
# that label's values. The last two are histograms.
NVIDIA = {
    "nv_trt_llm_request_metrics": (
        "request_type",
        {"active", "max", "scheduled", "context", "waiting"},
    ),
    "nv_trt_llm_runtime_memory_metrics": ("memory_type", {"cpu", "gpu", "pinned"}),
    "nv_trt_llm_kv_cache_block_metrics": (
        "kv_cache_block_type",
        {"max", "free", "used", "tokens_per", "reused", "fraction"},
    ),
    "nv_trt_llm_inflight_batcher_metrics": (
        "inflight_batcher_specific_metric",
        {"total_context_tokens", "generation_requests", "micro_batch_id", "paused_requests"},
    ),
    "nv_llm_input_token_len": ("response_metric_type", {"total_input_tokens"}),
    "nv_llm_output_token_len": ("response_metric_type", {"total_output_tokens"}),
}
# Triton's own of GPUs, which a machine without one doesn't export: its docs/user_guide/metrics.md
GPUS = {
    "nv_gpu_utilization",
    "nv_gpu_memory_total_bytes",
    "nv_gpu_memory_used_bytes",
    "nv_gpu_power_usage",
    "nv_gpu_power_limit",
}
Labels = Mapping[str, set[str]]
"""Label → its values; none are any."""


def selectors(expression: str) -> list[Any]:
    """Every metric that a PromQL expression reads."""
    found: list[Any] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql.MatrixSelector):
            node = node.vector_selector
        if isinstance(node, promql.VectorSelector):
            found.append(node)

    plain = expression.replace("$__rate_interval", "1m").replace("$model", "m")
    promql.walk(promql.parse(plain), visit)
    return found


def expressions() -> Iterator[str]:
    for panel in PANELS:
        yield from (target["expr"] for target in panel["targets"])
    yield from (rule["expr"] for rule in ALERTS)


def used() -> dict[str, list[Any]]:
    """Metric → the selectors that read it."""
    found: dict[str, list[Any]] = {}
    for expression in expressions():
        for selector in selectors(expression):
            found.setdefault(selector.name, []).append(selector)
    return found


def exposition(text: str) -> dict[str, Labels]:
    """Series → its labels, from what an endpoint shows, by the names that Prometheus will see."""
    found: dict[str, dict[str, set[str]]] = {}
    for name, labels in re.findall(r"^([a-z_:]+)(?:\{(.*)\})? ", text, re.MULTILINE):
        known = found.setdefault(name, {})
        for label in re.findall(r'(\w+)="', labels):
            known[label] = set()
    return found


@lru_cache
def ours() -> dict[str, Labels]:
    """What the proxy shows once every instrument of it has been used, but for the engine's."""
    metrics = Metrics()
    with RequestMeter(metrics, model="m", endpoint="e") as meter:
        meter.exchange.queued_seconds = 0.1
        meter.prompt(1)
        meter.tokens(1)
        meter.tokens(1)
        meter.perf(
            Perf(
                arrival_ns=1,
                first_scheduled_ns=2,
                first_token_ns=3,
                last_token_ns=4,
                cached_tokens=1,
            )
        )
        meter.finish("stop")
    metrics.tally.add(ERRORS, "m", "e", "SomeError")
    for instrument in INSTRUMENTS:
        if instrument.kind == "gauge":
            metrics.tally.set(instrument, *instrument.labels, value=1)
    return exposition(asyncio.run(metrics.text()).decode())


def nvidias() -> dict[str, Labels]:
    found = {}
    for name, (label, values) in NVIDIA.items():
        histogram = name.startswith("nv_llm_")
        for suffix in ("_bucket", "_sum", "_count") if histogram else ("",):
            found[name + suffix] = {label: values, "model": set(), "version": set()}
    return found


def unknown(known: Mapping[str, Labels], names: set[str]) -> list[str]:
    """What is read of the metrics `names` and isn't there: a series, a label, a label's value."""
    wrong = []
    for name in names:
        if name not in known:
            wrong.append(name)
            continue
        for selector in used()[name]:
            for matcher in selector.matchers.matchers:
                values = known[name].get(matcher.name)
                if values is None or (values and matcher.value not in values):
                    wrong.append(f"{name}{{{matcher.name}={matcher.value}}}")
    return wrong


def names(prefix: str) -> set[str]:
    return {name for name in used() if name.startswith(prefix)}


def test_every_metric_comes_from_the_proxy_triton_nvidias_backend_or_prometheus() -> None:
    of_triton = names("nv_inference_") | names("nv_cpu_")
    others = set(used()) - names("trtbuild_") - of_triton - GPUS - set(nvidias())
    assert others == {"up"}


def test_the_proxy_exports_what_is_asked_of_it() -> None:
    assert len(names("trtbuild_")) >= 6
    assert not unknown(ours(), names("trtbuild_"))


def test_nvidias_backend_exports_what_is_asked_of_it() -> None:
    asked = names("nv_trt_llm_") | names("nv_llm_")
    assert len(asked) >= 6
    assert not unknown(nvidias(), asked)


def test_the_proof_would_find_a_wrong_name_a_wrong_label_and_a_wrong_value() -> None:
    known = {"up": {"instance": set[str]()}, "x": {"job": {"proxies"}}}
    assert unknown(known, {"up"}) == ["up{job=triton}", "up{job=proxy}"]
    assert unknown({"up": {"job": {"proxy"}}}, {"up"}) == ["up{job=triton}"]
    assert unknown({}, {"up"}) == ["up"]


def generate(address: str) -> None:
    body = json.dumps({"text_input": "hi", "max_tokens": 2}).encode()
    with urllib.request.urlopen(f"http://{address}/v2/models/ensemble/generate", body) as response:
        assert response.status == 200


async def of_the_engine(url: str) -> Tally:
    """What the proxy reads of it."""
    return (await TritonMetrics((url,), {"tensorrt_llm": ("chat",)}).read()).gauges


@pytest.mark.triton
def test_a_real_triton_exports_what_is_asked_of_it(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    convert(tiny_models["llama"], tmp_path / "ckpt", options=ConvertOptions(dtype="float32"))
    limits = LimitOptions(max_batch_size=2, max_num_tokens=64, kv_cache_gib=0.01)
    build(tmp_path / "ckpt", tmp_path / "engine", options=limits)
    write_repository(tmp_path / "engine", tmp_path / "repo")
    config = LaunchConfig(repository=tmp_path / "repo", log_path=tmp_path / "log", grace_s=2)
    with Triton(config) as triton:
        # there are series of a model once it has been asked
        generate(triton.http_address)
        url = f"http://{triton.metrics_address}/metrics"
        with urllib.request.urlopen(url) as response:
            known = exposition(response.read().decode())
        ours = asyncio.run(of_the_engine(url)).numbers
    blocks = ours["trtbuild_kv_cache_blocks_max"]["chat",]
    assert 0 <= ours["trtbuild_kv_cache_blocks_used"]["chat",] <= blocks
    assert blocks > 0
    assert ours["trtbuild_engine_requests_waiting"].keys() == {("chat",)}
    assert ours["trtbuild_triton_metrics_up"] == {(url,): 1}
    asked = names("nv_inference_") | names("nv_cpu_")
    assert len(asked) >= 4
    assert not unknown(known, asked)


def test_alerts_ring_when_they_should_and_only_then(tmp_path: Path) -> None:
    shutil.copyfile(PROMETHEUS / "alerts.yml", tmp_path / "alerts.yml")
    shutil.copyfile(Path(__file__).with_name("alerts_test.yaml"), tmp_path / "test.yml")
    result = run(tool("promtool"), "test", "rules", tmp_path / "test.yml")
    assert result.returncode == 0, result.stdout + result.stderr


def test_prometheus_takes_its_configuration() -> None:
    result = run(tool("promtool"), "check", "config", PROMETHEUS / "prometheus.yml")
    assert result.returncode == 0, result.stderr
    assert f"{len(ALERTS)} rules found" in result.stdout


def test_each_alert_says_what_is_wrong_and_how_bad_it_is() -> None:
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS)
    for rule in ALERTS:
        assert rule["annotations"]["summary"], rule
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["for"]


def test_prometheus_asks_the_containers_that_are_there_on_their_ports() -> None:
    jobs = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs}
    services = resolved(COMPOSE[0])["services"]
    proxy, triton = (parsed(services[name]["command"]) for name in ("proxy", "triton"))
    assert targets == {
        "proxy": [f"proxy:{proxy['port']}"],
        "triton": [f"triton:{triton['metrics_port']}"],
    }
    asked = {m.value for s in used()["up"] for m in s.matchers.matchers}
    assert asked == set(targets)


def test_grafana_finds_its_source_and_its_dashboard() -> None:
    provisioning = DOCKER / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    [provider] = yaml.safe_load((provisioning / "dashboards" / "trtbuild.yml").read_text())[
        "providers"
    ]
    assert source["url"] == "http://prometheus:9090"
    wanted = {"type": "prometheus", "uid": source["uid"]}
    assert all(panel["datasource"] == wanted for panel in PANELS)
    [variable] = DASHBOARD["templating"]["list"]
    assert variable["datasource"] == wanted
    metric = re.search(r"label_values\((\w+), model\)", variable["query"]["query"])
    assert metric
    assert "model" in ours()[metric[1]]
    mounted = {
        Path(volume["source"]).name: volume["target"]
        for volume in resolved(COMPOSE[0], "--profile", "monitoring")["services"]["grafana"][
            "volumes"
        ]
    }
    assert mounted["dashboards"] == provider["options"]["path"]
    assert mounted["provisioning"] == "/etc/grafana/provisioning"


def test_panels_are_named_and_lie_side_by_side() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken = np.zeros((200, 24), bool)
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        area = taken[place["y"] : place["y"] + place["h"], place["x"] : place["x"] + place["w"]]
        assert area.shape == (place["h"], place["w"])
        assert not area.any(), panel["title"]
        area[:] = True
        assert panel["title"]
    for panel in PANELS:
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs) > 0
