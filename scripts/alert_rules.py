"""docs/prometheus/optillm-rules.yml: the alert about strategies without effect.

`python -m scripts.docs` writes it. The codes come from the guard's table.
"""

from __future__ import annotations

from pathlib import Path

from optictl.deployment.config_sections import Effect
from optictl.guard.judgement import CODES

PAGE = Path(__file__).resolve().parent.parent / "docs/prometheus/optillm-rules.yml"
_PERIOD = "1h"
_PAIR = "instance, strategy, base_model"


def page() -> str:
    """The whole file."""
    effect = Effect()
    degraded = "|".join(name for name, code in CODES.items() if code.level == "degraded")
    answers = f'sum by ({_PAIR}) (increase(optillm_requests_total{{status="2xx"}}[{_PERIOD}]))'
    return f"""\
# Written by `python -m scripts.docs`. In prometheus.yml: rule_files: [optillm-rules.yml]
groups:
  - name: optillm
    rules:
      # A request may have several codes: the share of the most frequent one is the least that is
      # without effect. optictl check --only strategies has the same limits.
      - alert: OptiLLMStrategyWithoutEffect
        expr: |
          max by ({_PAIR}) (
            sum by ({_PAIR}, code) (increase(optillm_degraded_total{{
              code=~"{degraded}"
            }}[{_PERIOD}]))
            / on ({_PAIR}) group_left ()
            {answers}
          ) >= {effect.fail_percent / 100}
          and on ({_PAIR})
          {answers} >= {effect.at_least}
        for: 5m
        labels:
          severity: warning
        annotations:
          summary: "{{{{ $labels.strategy }}}}-{{{{ $labels.base_model }}}} often has no effect"
          description: >-
            In the last hour, {{{{ $value | humanizePercentage }}}} of its answers or more were no
            better than a plain answer. Fix: optictl smoke
            {{{{ $labels.strategy }}}}-{{{{ $labels.base_model }}}} names the cause and the fix.
"""
