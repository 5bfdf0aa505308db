"""The panels about effect, checks and workers, with a real Prometheus and scripted metrics."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import generate_latest

from optictl.checks.prometheus import prometheus as checks_metrics
from optictl.results import Result
from testing.support import wait_until
from tests.integration.top.test_service import BOARD, PANELS, Prometheus, scraping

pytestmark = pytest.mark.slow

NAME = "optillm-proxy"
LABELS = ("deployment", "strategy", "base_model")


class Exporter:
    """The metrics of a service in which every scrape sees more requests.

    `moa` gives ten answers a scrape; four lost their critique, one repeated a candidate, two were
    fixed. `bon` lost nothing.
    """

    def __init__(self) -> None:
        registry = CollectorRegistry()
        requests = Counter("optillm_requests", "x", (*LABELS, "status"), registry=registry)
        degraded = Counter("optillm_degraded", "x", (*LABELS, "code"), registry=registry)
        fixed = Counter("optillm_fixed", "x", (*LABELS, "fix"), registry=registry)
        self._registry = registry
        self._growth = {
            requests.labels(NAME, "moa", "jerry-xl", "2xx"): 10,
            requests.labels(NAME, "moa", "jerry-xl", "5xx"): 30,
            requests.labels(NAME, "bon", "jerry-xl", "2xx"): 5,
            degraded.labels(NAME, "moa", "jerry-xl", "critique_empty"): 4,
            degraded.labels(NAME, "moa", "jerry-xl", "candidates_repeated"): 1,
            degraded.labels(NAME, "bon", "jerry-xl", "ratings_equal"): 0,
            fixed.labels(NAME, "moa", "jerry-xl", "samples"): 2,
            fixed.labels(NAME, "bon", "jerry-xl", "ratings"): 0,
        }
        self._started = Gauge(
            "process_start_time_seconds", "x", ("deployment",), registry=registry
        ).labels(NAME)
        results = [Result("health.alive", "", "fail"), Result("env.file", "", "pass")]
        self._checks = checks_metrics(results, NAME, 1.5, time.time() - 30).encode()
        self.scrapes = 0

    def scrape(self) -> bytes:
        self.scrapes += 1
        for counter, growth in self._growth.items():
            counter.inc(growth)
        self._started.set(1000 if self.scrapes < 3 else 2000)
        return generate_latest(self._registry) + self._checks


@contextmanager
def serving(exporter: Exporter) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = exporter.scrape()
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def _has_grown(exporter: Exporter, prometheus: Prometheus) -> bool:
    return exporter.scrapes > 3 and prometheus.value("optillm_fixed_total > 5") > 0


def test_the_panels_show_shares_fixes_checks_and_restarts(prometheus_program: Path) -> None:
    exporter = Exporter()
    with serving(exporter) as url, scraping(prometheus_program, url) as prometheus:
        wait_until(partial(_has_grown, exporter, prometheus), 30, "some scrapes", pause=0.3)
        lost = prometheus.series(PANELS["What strategies lost, by code"]["targets"][0])
        # of the answers: the requests that failed are none
        assert lost == {
            "moa critique_empty": pytest.approx(0.4),
            "moa candidates_repeated": pytest.approx(0.1),
        }
        fixes = prometheus.series(PANELS["Fixes per minute"]["targets"][0])
        assert fixes.keys() == {"moa samples"}
        failing = prometheus.series(PANELS["Checks that do not pass"]["targets"][0])
        assert failing == {"optillm-proxy health.alive fail": 1}
        age = prometheus.series(PANELS["Age of the last run of the checks"]["targets"][0])
        assert 30 <= age["optillm-proxy"] < 300
        (restarts,) = BOARD["annotations"]["list"]
        shown = {**restarts, "legendFormat": restarts["titleFormat"]}
        assert prometheus.series(shown) == {"Restart of optillm-proxy": 1}
