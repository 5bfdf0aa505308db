"""docs/prometheus/optillm-rules.yml: each alert fires, and does not fire, as `promtool` sees it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import alert_rules

pytestmark = pytest.mark.slow

#: The labels of the service's metrics, and of the checks': node_exporter has another instance.
PLACE = 'instance="here:4020",deployment="optillm-b"'
CHECKS = 'instance="here:9100",deployment="optillm-b"'
PAIR = f'{PLACE},strategy="moa",base_model="jerry-xl"'
LABELS = {
    "OptiLLMDown": 'job="optillm",instance="here:4020"',
    "OptiLLMStrategyWithoutEffect": PAIR,
    "OptiLLMCheckFails": f'{CHECKS},id="health.alive"',
    "OptiLLMChecksStale": CHECKS,
}


@dataclass(frozen=True)
class Case:
    """Series for 90 minutes, and the alert that fires after 80 of them, or "".

    A text is promtool's notation: `0+10x90` grows by 10 a minute.
    """

    name: str
    series: dict[str, str]
    fires: str = ""


def effect(answers: str, code: str, with_it: str) -> dict[str, str]:
    return {
        f'optillm_requests_total{{{PAIR},status="2xx"}}': f"0+{answers}x90",
        f'optillm_degraded_total{{{PAIR},code="{code}"}}': f"0+{with_it}x90",
    }


def requests(good: str, bad: str) -> dict[str, str]:
    return {
        f'optillm_requests_total{{{PAIR},status="2xx"}}': f"0+{good}x90",
        f'optillm_requests_total{{{PAIR},status="5xx"}}': f"0+{bad}x90",
    }


def workers(serving: int, wanted: int) -> dict[str, str]:
    series = {
        f'process_start_time_seconds{{{PLACE},worker="{place}"}}': "5x90"
        for place in range(serving)
    }
    counted = {
        f'optillm_workers{{{PLACE},worker="{place}"}}': f"{wanted}x90" for place in range(serving)
    }
    # another program on the host has the same metric
    return {**series, **counted, 'process_start_time_seconds{instance="other:9090"}': "5x90"}


STARTED = f"process_start_time_seconds{{{PLACE}}}"
ROOT = f'optillm_check_root_cause{{{CHECKS},id="health.alive"}}'
RAN = f"optillm_check_last_run_timestamp_seconds{{{CHECKS}}}"
LOOPS = f"optillm_loops_broken_total{{{PLACE}}}"
FULL = f'optillm_refusals_total{{{PLACE},code="overloaded"}}'
CASES = [
    Case(
        "half without effect", effect("10", "critique_empty", "5"), "OptiLLMStrategyWithoutEffect"
    ),
    Case("less than half", effect("10", "critique_empty", "4")),
    Case("all equal", effect("10", "ratings_equal", "10"), "OptiLLMStrategyWithoutEffect"),
    # a part of the effect is no alert
    Case("a part of it", effect("10", "candidates_repeated", "10")),
    # twelve answers in an hour are too few for a verdict
    Case("too few answers", effect("0.2", "critique_empty", "0.2")),
    Case("down", {'up{job="optillm",instance="here:4020"}': "1x70 0x20"}, "OptiLLMDown"),
    Case("up", {'up{job="optillm",instance="here:4020"}': "1x90"}),
    Case("another job is down", {'up{job="node",instance="here:9100"}': "0x90"}),
    Case("a fifth fails", requests("4", "1"), "OptiLLMRequestsFail"),
    Case("a tenth fails", requests("9", "1")),
    Case("all of few fail", requests("0", "0.5")),
    Case("a loop", {LOOPS: "0x75 1x15"}, "OptiLLMLoop"),
    Case("no loop any more", {LOOPS: "0x20 7x70"}),
    Case("the queue is full", {FULL: "0+1x90"}, "OptiLLMOverloaded"),
    Case("the queue was full", {FULL: "0+1x30 30x60"}),
    Case("a worker is missing", workers(1, 2), "OptiLLMWorkersMissing"),
    Case("all workers serve", workers(2, 2)),
    Case("restarts", {STARTED: "0x60 1 2 3 4 5 6 6x30"}, "OptiLLMRestarts"),
    Case("one upgrade", {STARTED: "0x60 1 2x30"}),
    Case("a check fails", {ROOT: "0x60 1x30"}, "OptiLLMCheckFails"),
    Case("a check failed once", {ROOT: "0x78 1 1 0x10"}),
    Case("checks stopped", {RAN: "0+60x60 3600x30"}, "OptiLLMChecksStale"),
    Case("checks run", {RAN: "0+60x90"}),
]


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    named = {case.fires for case in CASES} - {""}
    assert named == {alert.name for alert in alert_rules.ALERTS}


def test_promtool_agrees_with_every_case(prometheus_program: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(alert_rules.page())
    severities = {alert.name: alert.severity for alert in alert_rules.ALERTS}

    def group(case: Case) -> dict[str, Any]:
        labels = LABELS.get(case.fires, PLACE)
        severity = severities.get(case.fires, "")
        alert = f'alertname="{case.fires}",alertstate="firing",severity="{severity}"'
        firing = [{"labels": f"ALERTS{{{alert},{labels}}}", "value": 1}] if case.fires else []
        query = {"expr": 'ALERTS{alertstate="firing"}', "eval_time": "80m"}
        return {
            "name": case.name,
            "interval": "1m",
            "input_series": [{"series": name, "values": of} for name, of in case.series.items()],
            "promql_expr_test": [{**query, "exp_samples": firing}],
        }

    cases = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1m",
        "tests": [group(case) for case in CASES],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(cases))
    promtool = prometheus_program.with_name("promtool")
    for words in (["check", "rules", "rules.yml"], ["test", "rules", "test.yml"]):
        done = subprocess.run([promtool, *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", alert_rules.ALERTS, ids=lambda alert: alert.name)
def test_every_alert_names_a_command(alert: alert_rules.Alert) -> None:
    command = re.search(
        r"Fix: (?:optictl (check|logs|smoke)|systemctl status|raise )", alert.description
    )
    assert command
