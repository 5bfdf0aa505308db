"""The dashboard's queries and `optictl top`, with the real service and a real Prometheus."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from optictl.proof.standin import Reply, Seen
from testing import documented
from testing.support import (
    PROXY_KEY,
    ROOT,
    UNPRIVILEGED,
    assert_well_formed,
    free_port,
    open_directory,
    spawn,
    stop,
    wait_until,
)
from tests.integration.cli.helpers import attached, optictl
from tests.integration.guard.helpers import BOOM, MARK, Pair, guarded_pair

pytestmark = pytest.mark.slow

BOARD = json.loads((ROOT / "docs/grafana/optillm.json").read_text(encoding="utf-8"))
PANELS = {panel["title"]: panel for panel in BOARD["panels"] if panel["type"] != "row"}
#: Their series exist when a strategy lost something, or are of the checks:
#: tests/integration/top/test_effect_metrics.py.
OF_EFFECT = {
    "What strategies lost, by code",
    "Fixes per minute",
    "Checks that do not pass",
    "Age of the last run of the checks",
}
ALL = {"moa", "re2", "rstar"}
#: What the series of each panel are called after the traffic below; a number has no name.
SERIES = {
    "Uptime": {""},
    "In flight": {f"{name} {what}" for name in ALL for what in ("requests", "calls")}
    | {"", "in the queue"},
    "Requests": {""},
    "Failed": {""},
    "Tokens": {""},
    "Loops stopped": {""},
    "Requests per minute": {f"{name}-jerry-xl" for name in ALL},
    "Failed requests per minute, by error code": {
        "re2 upstream_failed",
        "re2 loop_detected",
        "rstar upstream_call_limit",
    },
    "Refused requests per minute, by reason": {
        "strategy_not_enabled",
        "invalid_api_key",
        "loop_detected",
    },
    "Request duration": {f"{name} {share}" for name in ALL for share in ("p50", "p95")},
    "Upstream call duration": {"jerry-xl p50", "jerry-xl p95"},
    "Upstream calls per request": ALL,
    "Workers": {"optillm-proxy serve", "optillm-proxy wanted"},
    "Tokens per minute": {
        f"{name} {kind}" for name in ("moa", "rstar") for kind in ("prompt", "completion")
    },
    "Tokens per request": {"moa", "rstar"},
    "Upstream calls per minute, by status": {"jerry-xl 2xx", "jerry-xl 5xx", "jerry-xl none"},
    "Failed upstream calls per minute, by reason": {"jerry-xl 5xx", "jerry-xl ended"},
}


@dataclass
class Prometheus:
    """A running Prometheus."""

    url: str

    def get(self, path: str, **parameters: str | float) -> Any:
        answer = httpx.get(
            f"{self.url}/api/v1/{path}", params=parameters, timeout=30, verify=False
        ).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def value(self, query: str) -> float:
        """The one value of a query, NaN for none."""
        found = self.get("query", query=query)["result"]
        return float(found[0]["value"][1]) if found else math.nan

    def series(self, target: dict[str, Any], **chosen: str) -> dict[str, float]:
        """What Grafana would show of a query: the name of each series and its newest value."""
        query = filled(target["expr"], **chosen)
        if target.get("instant"):
            found = self.get("query", query=query)["result"]
        else:
            now = time.time()
            found = self.get("query_range", query=query, start=now - 30, end=now, step=1)["result"]
            found = [{**one, "value": one["values"][-1]} for one in found]
        names = [
            re.sub(r"{{(\w+)}}", lambda m, one=one: one["metric"][m[1]], target["legendFormat"])
            for one in found
        ]
        assert len(set(names)) == len(names)
        return {name: float(one["value"][1]) for name, one in zip(names, found, strict=True)}


def filled(query: str, **chosen: str) -> str:
    """A query with Grafana's values for its variables: everything where nothing is chosen."""
    values = {
        "__rate_interval": "10m",
        "__range": "10m",
        "deployment": ".*",
        "instance": ".*",
        "strategy": ".*",
        "base_model": ".*",
        **chosen,
    }
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], query)


@contextmanager
def scraping(program: Path, url: str) -> Iterator[Prometheus]:
    """Prometheus with the guide's configuration, but for the places and a scrape a second."""
    block = documented.block_with("docs/guides/monitoring.md", "yaml", "scrape_configs:")
    config = yaml.safe_load(block)
    (job,) = config["scrape_configs"]
    port = free_port()
    with open_directory() as directory:
        key = directory / "key"
        key.touch(0o600)
        key.write_text(f"{PROXY_KEY}\n")
        if os.getuid() == 0:
            for path in (directory, key):
                os.chown(path, UNPRIVILEGED, UNPRIVILEGED)
        job["authorization"]["credentials_file"] = str(key)
        job["static_configs"][0]["targets"] = [url.removeprefix("http://").removesuffix("/v1")]
        (directory / "prometheus.yml").write_text(
            yaml.safe_dump({"global": {"scrape_interval": "1s"}, **config})
        )
        command = [
            str(program),
            f"--config.file={directory}/prometheus.yml",
            f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        process = spawn(command, {}, directory, directory / "log")
        try:
            prometheus = Prometheus(f"http://127.0.0.1:{port}")
            wait_until(
                lambda: is_scraped(process, directory / "log", prometheus),
                60,
                "the first scrape",
                pause=0.3,
            )
            yield prometheus
        finally:
            stop(process)


def is_scraped(process: subprocess.Popen[bytes], log: Path, prometheus: Prometheus) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return prometheus.value("up") == 1
    except (httpx.TransportError, ValueError):  # not yet
        return False


def traffic(pair: Pair) -> None:
    """One request of everything that a panel shows."""
    assert pair.server.ask("moa-jerry-xl", MARK).status_code == 200
    assert (
        pair.server.ask("rstar-jerry-xl", MARK).status_code == 400
    )  # its fifth call is not let through
    assert pair.server.ask(f"{MARK}-jerry-xl").status_code == 400
    assert pair.server.post({}, key="wrong").status_code == 401
    pair.upstream.respond = lambda _: BOOM
    assert pair.server.ask("re2-jerry-xl", MARK).status_code == 502

    def back(seen: Seen) -> Reply:
        answer = pair.server.post({**(seen.body or {}), "model": "moa-jerry-xl"})
        return Reply(answer.status_code, answer.json())

    pair.upstream.respond = back
    assert pair.server.ask("re2-jerry-xl", MARK).status_code == 421
    pair.upstream.respond = None


@pytest.fixture(scope="module")
def pair(release: Path) -> Iterator[Pair]:
    with guarded_pair(release, strategies=sorted(ALL), extra=["--max-upstream-calls", "4"]) as pair:
        yield pair


def _has_ended(prometheus: Prometheus, count: int) -> bool:
    """Whether calls that outlast their request, which are accounted for last, are scraped."""
    ended = prometheus.value('sum(optillm_upstream_failures_total{reason="ended"})')
    return ended == count


@pytest.fixture(scope="module")
def prometheus(prometheus_program: Path, pair: Pair) -> Iterator[Prometheus]:
    """It scraped the service before, between and after two rounds of traffic: rates need growth."""
    with scraping(prometheus_program, pair.server.url) as prometheus:
        for count in (1, 2):
            traffic(pair)
            wait_until(partial(_has_ended, prometheus, count), 30, "a scrape", pause=0.3)
        yield prometheus


@pytest.mark.parametrize("title", [title for title in PANELS if title not in OF_EFFECT])
def test_every_query_of_the_dashboard_tells_something(
    title: str, prometheus: Prometheus, release: Path
) -> None:
    series: dict[str, float] = {}
    targets = [
        target
        for panel in BOARD["panels"]
        if panel.get("title") == title
        for target in panel.get("targets", ())
    ]
    for target in targets:
        found = prometheus.series(target)
        assert found
        series |= found
    assert all(math.isfinite(value) and value >= 0 for value in series.values())
    if title == "Runs":
        assert set(series) == {f"0.3.12 ({release.name})"}
    elif title in SERIES:
        assert set(series) == SERIES[title]
    else:
        assert title in ("Memory", "CPU", "Open files")
    if title not in ("In flight", "CPU"):
        assert all(value > 0 for value in series.values())


def test_promtool_finds_nothing_odd(pair: Pair, prometheus_program: Path, tmp_path: Path) -> None:
    root = attached(tmp_path / "root", pair.server.url, pair.upstream.base_url)
    checked = optictl("check", "--root", root, "--output", "prometheus", home=tmp_path).out
    assert "optillm_check_status" in checked
    for text in (pair.server.get("/metrics").text, checked):
        assert_well_formed(prometheus_program, text)


def test_the_figures_are_those_of_the_traffic(prometheus: Prometheus) -> None:
    def shown(title: str) -> dict[str, float]:
        return prometheus.series(PANELS[title]["targets"][0])

    calls = shown("Upstream calls per request")
    assert (calls["moa"], calls["rstar"]) == (pytest.approx(3), pytest.approx(4))
    # three of four; each series is extrapolated from its own beginning
    assert 0.5 < shown("Failed")[""] < 1
    assert 0 < shown("Uptime")[""] < 600


def test_a_choice_leaves_the_others_out(prometheus: Prometheus) -> None:
    target = PANELS["Requests per minute"]["targets"][0]
    assert set(prometheus.series(target, strategy="(moa|re2)")) == {"moa-jerry-xl", "re2-jerry-xl"}
    assert prometheus.series(target, instance="elsewhere") == {}
    assert prometheus.series(target, deployment="optillm-b") == {}


def test_what_can_be_chosen(prometheus: Prometheus) -> None:
    choices = {}
    for variable in BOARD["templating"]["list"]:
        if variable["type"] == "query":
            parts = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
            assert parts
            metric, label = parts.groups()
            choices[variable["name"]] = set(
                prometheus.get(f"label/{label}/values", **{"match[]": filled(metric)})
            )
    assert choices["deployment"] == {"optillm-proxy"}
    assert choices["strategy"] == ALL
    assert choices["base_model"] == {"jerry-xl"}
    assert len(choices["instance"]) == 1


def test_top_shows_what_is_in_flight_and_what_went_by(pair: Pair, tmp_path: Path) -> None:
    root = attached(tmp_path / "root", pair.server.url, pair.upstream.base_url)
    arrived, go_on = threading.Event(), threading.Event()

    def hold(_seen: Seen) -> None:
        arrived.set()
        go_on.wait(60)

    pair.fresh().upstream.respond = hold
    with ThreadPoolExecutor(2) as pool:
        held = pool.submit(pair.server.ask, "moa-jerry-xl", MARK)
        try:
            assert arrived.wait(20)
            pair.upstream.respond = None
            words = ["top", "--root", root, "--interval", "4", "--count", "2", "-o", "json"]
            watching = pool.submit(optictl, *words, home=tmp_path)
            while not watching.done():
                assert pair.server.ask("moa-jerry-xl", MARK).status_code == 200
                time.sleep(0.2)
            outcome = watching.result()
        finally:
            go_on.set()
        trace = held.result().headers["x-optillm-trace"]
    assert outcome.code == 0, outcome.err
    _, screen = map(json.loads, outcome.out.splitlines())
    assert (screen["state"], screen["ready"], screen["problem"]) == ("running", True, "")
    (one,) = [each for each in screen["in_flight"] if each["trace"] == trace]
    assert (one["model"], one["calls"], one["waiting"]) == ("moa-jerry-xl", 1, 1)
    assert one["age"] > 4
    moa = next(each for each in screen["rates"] if each["strategy"] == "moa")
    assert moa["requests"] > 0
    assert moa["calls"] > moa["requests"]
    assert moa["tokens"] > moa["calls"]
    assert 0 < screen["p50"] <= screen["p95"]
    assert screen["memory"] > 2**20
    assert MARK not in outcome.out + outcome.err
