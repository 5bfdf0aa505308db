"""The panels and the alert about effect, with a real Prometheus and a service that is scripted."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import generate_latest

from scripts import alert_rules
from testing.support import wait_until
from tests.integration.top.test_service import PANELS, Prometheus, scraping

pytestmark = pytest.mark.slow

LABELS = ("strategy", "base_model")


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
            requests.labels("moa", "jerry-xl", "2xx"): 10,
            requests.labels("moa", "jerry-xl", "5xx"): 30,
            requests.labels("bon", "jerry-xl", "2xx"): 5,
            degraded.labels("moa", "jerry-xl", "critique_empty"): 4,
            degraded.labels("moa", "jerry-xl", "candidates_repeated"): 1,
            degraded.labels("bon", "jerry-xl", "ratings_equal"): 0,
            fixed.labels("moa", "jerry-xl", "samples"): 2,
            fixed.labels("bon", "jerry-xl", "ratings"): 0,
        }
        self.scrapes = 0

    def scrape(self) -> bytes:
        self.scrapes += 1
        for counter, growth in self._growth.items():
            counter.inc(growth)
        return generate_latest(self._registry)


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


def test_the_panels_show_shares_and_fixes(prometheus_program: Path) -> None:
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


@pytest.mark.parametrize(
    ("answers", "code", "with_it", "fires"),
    [
        ("10", "critique_empty", "5", True),
        ("10", "critique_empty", "4", False),
        ("10", "ratings_equal", "10", True),
        # a part of the effect is no alert
        ("10", "candidates_repeated", "10", False),
        # twelve answers in an hour are too few for a verdict
        ("0.2", "critique_empty", "0.2", False),
    ],
)
def test_the_alert_fires_from_half_of_the_answers_on(
    answers: str, code: str, with_it: str, fires: bool, prometheus_program: Path, tmp_path: Path
) -> None:
    """For an hour, a minute has `answers` answers, and `with_it` of them have the code."""
    (tmp_path / "rules.yml").write_text(alert_rules.page())
    labels = 'instance="here",strategy="moa",base_model="jerry-xl"'
    series = [
        {"series": f'optillm_requests_total{{{labels},status="2xx"}}', "values": f"0+{answers}x90"},
        {
            "series": f'optillm_degraded_total{{{labels},code="{code}"}}',
            "values": f"0+{with_it}x90",
        },
    ]
    alert = 'alertname="OptiLLMStrategyWithoutEffect",alertstate="firing",severity="warning"'
    firing = [{"labels": f"ALERTS{{{alert},{labels}}}", "value": 1}]
    query = {"expr": 'ALERTS{alertstate="firing"}', "eval_time": "80m"}
    case = {"promql_expr_test": [{**query, "exp_samples": firing if fires else []}]}
    cases = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, **case}],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(cases))
    promtool = prometheus_program.with_name("promtool")
    done = subprocess.run(
        [promtool, "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
