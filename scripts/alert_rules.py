"""docs/prometheus/optillm-rules.yml: the alert rules for the service and for its checks.

`python -m scripts.docs` writes it. Codes and limits come from the guard's table and from the
defaults of the configuration.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from optictl.deployment.config_sections import Effect
from optictl.guard.judgement import CODES

PAGE = Path(__file__).resolve().parent.parent / "docs/prometheus/optillm-rules.yml"
_PLACE = "instance, deployment"
_NAME = "--name {{ $labels.deployment }}"
_PAIR = f"{_PLACE}, strategy, base_model"
#: An hour: strategies take minutes, so shorter periods have too few answers for a verdict.
_PERIOD = "1h"

_HEAD = """\
# Written by `python -m scripts.docs`. In prometheus.yml: rule_files: [optillm-rules.yml]
# The job of the service has the name optillm. The alerts on checks need their metrics
# (monitoring.textfile in optictl.yaml).
groups:
  - name: optillm
    rules:
"""


@dataclass(frozen=True)
class Alert:
    """One rule. `wait`: how long the expression must hold. `why` is a comment in the file."""

    name: str
    why: str
    expression: str
    wait: str
    severity: Literal["critical", "warning"]
    summary: str
    description: str

    def text(self) -> str:
        """The rule as YAML, in the list of a group."""
        parts = [
            textwrap.fill(self.why, 92, initial_indent="# ", subsequent_indent="# "),
            f"- alert: {self.name}",
            "  expr: |",
            textwrap.indent(textwrap.dedent(self.expression).strip(), " " * 4),
            f"  for: {self.wait}",
            "  labels:",
            f"    severity: {self.severity}",
            "  annotations:",
            f'    summary: "{self.summary}"',
            "    description: >-",
            textwrap.indent(textwrap.fill(self.description, 88, break_on_hyphens=False), " " * 6),
        ]
        return textwrap.indent("\n".join(parts), " " * 6)


def _without_effect() -> Alert:
    effect = Effect()
    degraded = "|".join(name for name, code in CODES.items() if code.level == "degraded")
    answers = f'sum by ({_PAIR}) (increase(optillm_requests_total{{status="2xx"}}[{_PERIOD}]))'
    return Alert(
        "OptiLLMStrategyWithoutEffect",
        "A request may have several codes: the share of the most frequent one is the least that is"
        " without effect. optictl check --only strategies has the same limits.",
        f"""
        max by ({_PAIR}) (
          sum by ({_PAIR}, code) (increase(optillm_degraded_total{{
            code=~"{degraded}"
          }}[{_PERIOD}]))
          / on ({_PAIR}) group_left ()
          {answers}
        ) >= {effect.fail_percent / 100}
        and on ({_PAIR})
        {answers} >= {effect.at_least}
        """,
        "5m",
        "warning",
        "{{ $labels.strategy }}-{{ $labels.base_model }} often has no effect",
        "In the last hour, {{ $value | humanizePercentage }} of its answers or more were no better"
        " than a plain answer. Fix: optictl smoke"
        f" {{{{ $labels.strategy }}}}-{{{{ $labels.base_model }}}} {_NAME} names the cause and the"
        " fix.",
    )


def _of_the_service() -> list[Alert]:
    requests = f"sum by ({_PLACE}) (increase(optillm_requests_total"
    return [
        Alert(
            "OptiLLMDown",
            "A restart takes seconds, and the socket keeps connections meanwhile.",
            'up{job="optillm"} == 0',
            "2m",
            "critical",
            "OptiLLM at {{ $labels.instance }} does not answer",
            "Prometheus gets no metrics, so LiteLLM gets no answers either, or Prometheus has an"
            " old copy of the proxy key. Fix: optictl check names the cause and the fix.",
        ),
        Alert(
            "OptiLLMRequestsFail",
            "5xx: errors of the upstream, of a strategy, and timeouts. 4xx are the clients' own.",
            f"""
            {requests}{{status="5xx"}}[15m]))
            / {requests}[15m])) >= 0.2
            and {requests}[15m])) >= 10
            """,
            "5m",
            "critical",
            "Many requests to {{ $labels.deployment }} fail",
            "In 15 minutes, {{ $value | humanizePercentage }} of the requests ended with a 5xx."
            f" Fix: optictl logs --errors {_NAME} shows them; the base model or LiteLLM is"
            " often the cause.",
        ),
        Alert(
            "OptiLLMLoop",
            "A request came back to OptiLLM. The guard ended it; the route is still wrong.",
            f"sum by ({_PLACE}) (increase(optillm_loops_broken_total[15m])) > 0",
            "0m",
            "critical",
            "LiteLLM routes a base model of {{ $labels.deployment }} back to OptiLLM",
            "Every such request costs several calls and fails. Fix: optictl check --only routing"
            f" {_NAME} names the entry in LiteLLM's configuration.",
        ),
        Alert(
            "OptiLLMOverloaded",
            "Full queues answer 503 with Retry-After.",
            f'sum by ({_PLACE}) (increase(optillm_refusals_total{{code="overloaded"}}[15m])) > 0',
            "5m",
            "warning",
            "{{ $labels.deployment }} refuses requests because its queue is full",
            "{{ $value | humanize }} requests in 15 minutes. Fix: raise limits.max_in_flight or"
            " workers in optictl.yaml, or send fewer requests.",
        ),
        Alert(
            "OptiLLMWorkersMissing",
            "A worker that dies is replaced within seconds.",
            f"""
            count by ({_PLACE}) (process_start_time_seconds{{deployment!=""}})
            < max by ({_PLACE}) (optillm_workers)
            """,
            "3m",
            "warning",
            "Only {{ $value }} workers of {{ $labels.deployment }} serve",
            f"The service was started with more. Fix: optictl logs --errors {_NAME} shows why"
            " workers end.",
        ),
        Alert(
            "OptiLLMRestarts",
            "An upgrade or a configuration change restarts the service once, by way of a second"
            " process.",
            f"""
            max by ({_PLACE}) (changes(process_start_time_seconds{{deployment!=""}}[30m])) > 4
            """,
            "0m",
            "warning",
            "{{ $labels.deployment }} restarts again and again",
            f"{{{{ $value }}}} times in 30 minutes. Fix: optictl logs --errors {_NAME} shows why it"
            " ends.",
        ),
    ]


def _of_the_checks() -> list[Alert]:
    return [
        Alert(
            "OptiLLMCheckFails",
            "One alert for each root cause. A check that another one explains has none.",
            "max by (instance, deployment, id) (optillm_check_root_cause) == 1",
            "3m",
            "critical",
            "{{ $labels.deployment }}: the check {{ $labels.id }} fails",
            f"Fix: optictl check --only {{{{ $labels.id }}}} {_NAME} names the cause and the fix.",
        ),
        Alert(
            "OptiLLMChecksStale",
            "The timer runs the checks every minute.",
            f"time() - max by ({_PLACE}) (optillm_check_last_run_timestamp_seconds) > 600",
            "1m",
            "warning",
            "The checks of {{ $labels.deployment }} do not run",
            "The last run was {{ $value | humanizeDuration }} ago. Fix: systemctl status"
            " {{ $labels.deployment }}-check.timer {{ $labels.deployment }}-check.service",
        ),
    ]


ALERTS = [*_of_the_service(), _without_effect(), *_of_the_checks()]


def page() -> str:
    """The whole file."""
    return _HEAD + "\n".join(alert.text() + "\n" for alert in ALERTS)
