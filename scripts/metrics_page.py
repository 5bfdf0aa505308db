"""The table of docs/reference/metrics.md, from the metrics that the guard registers."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from optictl.checks import prometheus
from optictl.guard.metrics import Meter
from optictl.results import Result

PAGE = Path(__file__).resolve().parent.parent / "docs/reference/metrics.md"
_LABELS_OF_PROMETHEUS = {"le", "quantile"}


def _table(exposition: str) -> str:
    lines = ["| Metric | Type | Labels | Meaning |", "|---|---|---|---|"]
    for family in text_string_to_metric_families(exposition):
        labels = {name for sample in family.samples for name in sample.labels}
        cells = ", ".join(f"`{name}`" for name in sorted(labels - _LABELS_OF_PROMETHEUS))
        name = f"{family.name}_total" if family.type == "counter" else family.name
        lines.append(f"| `{name}` | {family.type} | {cells} | {family.documentation} |")
    return "\n".join(lines)


def tables() -> dict[str, str]:
    """Marker in the page -> table."""
    build = dict.fromkeys(("optillm", "release", "guard"), "")
    service = Meter(["moa"], ["jerry-xl"], build).exposition().decode()
    checks = prometheus.prometheus([Result("config.valid", "", "pass")], "optillm-proxy", 0.1, 0.0)
    return {"service metrics": _table(service), "check metrics": _table(checks)}
