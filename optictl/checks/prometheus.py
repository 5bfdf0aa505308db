"""Results as Prometheus metrics, for the textfile collector of node_exporter."""

from __future__ import annotations

from collections.abc import Sequence

from optictl.results import SEVERITY, Result, good


def _sample(name: str, value: str, **labels: str) -> str:
    """One line of the text format."""
    text = ",".join(f'{label}="{_escaped(words)}"' for label, words in labels.items())
    return f"optillm_check_{name}{{{text}}} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def prometheus(results: Sequence[Result], deployment: str, seconds: float, now: float) -> str:
    """Metrics for node_exporter's textfile collector; `now` in seconds since the epoch.

    Every sample has the label `deployment`: two deployments on a host have metrics of the same
    names.
    """
    lines = [
        "# HELP optillm_check_status 1 for the current status of each check, 0 for the others.",
        "# TYPE optillm_check_status gauge",
    ]
    for r in results:
        lines += [
            _sample("status", f"{int(r.status == s)}", deployment=deployment, id=r.id, status=s)
            for s in SEVERITY
        ]
    lines += [
        "# HELP optillm_check_root_cause"
        " 1 for a failed check that no other check explains, else 0.",
        "# TYPE optillm_check_root_cause gauge",
    ]
    for r in results:
        is_root = r.failed and r.root_cause == r.id
        lines.append(_sample("root_cause", f"{int(is_root)}", deployment=deployment, id=r.id))
    for name, description, value in (
        ("healthy", "1 if no check failed, else 0.", f"{int(good(results))}"),
        ("duration_seconds", "Duration of the last run of all checks.", f"{seconds:.3f}"),
        ("last_run_timestamp_seconds", "Time of the last run of the checks.", f"{now:.0f}"),
    ):
        lines += [
            f"# HELP optillm_check_{name} {description}",
            f"# TYPE optillm_check_{name} gauge",
            _sample(name, value, deployment=deployment),
        ]
    return "\n".join(lines) + "\n"
