"""Results as Prometheus metrics, for the textfile collector of node_exporter."""

from __future__ import annotations

from collections.abc import Sequence

from optictl.results import SEVERITY, Result, good


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def prometheus(results: Sequence[Result], seconds: float, now: float) -> str:
    """Metrics for node_exporter's textfile collector; `now` in seconds since the epoch."""
    lines = [
        "# HELP optillm_check_status 1 for the current status of each check, 0 for the others.",
        "# TYPE optillm_check_status gauge",
    ]
    for r in results:
        lines += [
            f'optillm_check_status{{id="{_label(r.id)}",status="{s}"}} {int(r.status == s)}'
            for s in SEVERITY
        ]
    lines += [
        "# HELP optillm_check_root_cause"
        " 1 for a failed check that no other check explains, else 0.",
        "# TYPE optillm_check_root_cause gauge",
        *(
            f'optillm_check_root_cause{{id="{_label(r.id)}"}}'
            f" {int(r.failed and r.root_cause == r.id)}"
            for r in results
        ),
    ]
    for name, description, value in (
        ("healthy", "1 if no check failed, else 0.", f"{int(good(results))}"),
        ("duration_seconds", "Duration of the last run of all checks.", f"{seconds:.3f}"),
        ("last_run_timestamp_seconds", "Time of the last run of the checks.", f"{now:.0f}"),
    ):
        lines += [
            f"# HELP optillm_check_{name} {description}",
            f"# TYPE optillm_check_{name} gauge",
            f"optillm_check_{name} {value}",
        ]
    return "\n".join(lines) + "\n"
