"""Write docs/grafana/optillm.json for Grafana 11.6 and later: `uv run scripts/dashboard.py`.

It uses Grafana's own SDK.
"""

from __future__ import annotations

import json
from pathlib import Path
from string import ascii_uppercase

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

PAGE = Path(__file__).resolve().parent.parent / "docs/grafana/optillm.json"
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_DEPLOYMENT = 'deployment=~"$deployment"'
_HERE = f'instance=~"$instance",{_DEPLOYMENT}'
_BUILD = f"max by (optillm, release) (optillm_build_info{{{_HERE}}})"
_THESE = f'{_HERE},strategy=~"$strategy",base_model=~"$base_model"'


def _per_minute(metric: str, *by: str, labels: str = _THESE) -> str:
    return f"60 * sum by ({', '.join(by)}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def _happened(expression: str) -> str:
    """Hide series that are zero: the guard exports every code and reason from the start."""
    return f"{expression} > 0"


def _quantile(share: float, histogram: str, by: str) -> str:
    return (
        f"histogram_quantile({share}, sum by (le, {by}) "
        f"(rate({histogram}_bucket{{{_THESE}}}[$__rate_interval])))"
    )


def _in_range(metric: str, labels: str = _THESE) -> str:
    return f"sum(increase({metric}{{{labels}}}[$__range]))"


def _each(above: str, below: str, by: str = "strategy") -> str:
    """The growth of one counter, divided by the growth of another."""
    sums = (
        f"sum by ({by}) (rate({metric}{{{_THESE}}}[$__rate_interval]))" for metric in (above, below)
    )
    return " / ".join(sums)


def _share_of_answers(metric: str, by: str) -> str:
    """The growth of a counter with the label `by`, for each answer of its strategy."""
    above = f"sum by (strategy, {by}) (rate({metric}{{{_THESE}}}[$__rate_interval]))"
    answers = f'optillm_requests_total{{{_THESE},status="2xx"}}'
    below = f"sum by (strategy) (rate({answers}[$__rate_interval]))"
    return _happened(f"{above} / on (strategy) group_left () {below}")


def _query(expression: str, legend: str, ref: str) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .expr(expression)
        .legend_format(legend)
        .ref_id(ref)
        .datasource(_SOURCE)
    )


def _graph(
    title: str, text: str, unit: str, *queries: tuple[str, str], span: int = 8
) -> timeseries.Panel:
    """A panel over time; `queries` are expressions, each with the name of its series."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(text)
        .unit(unit)
        .span(span)
        .height(8)
        .min(0)
        .datasource(_SOURCE)
    )
    legend = common.VizLegendOptions().show_legend(True)
    panel.legend(
        legend.display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).calcs([])
    )
    panel.tooltip(
        common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
    )
    for ref, (expression, name) in zip(ascii_uppercase, queries, strict=False):
        panel.with_target(_query(expression, name, ref).range())
    return panel.fill_opacity(10)


def _number(
    title: str, text: str, unit: str, expression: str, bad: float | None = None, decimals: int = 0
) -> stat.Panel:
    """One number; from `bad` on its colour is "red"."""
    steps = [
        Threshold(color="green", value=None),
        *([Threshold(color="red", value=bad)] if bad is not None else []),
    ]
    return (
        stat.Panel()
        .title(title)
        .description(text)
        .unit(unit)
        .decimals(decimals)
        .span(3)
        .height(4)
        .datasource(_SOURCE)
        .graph_mode(BigValueGraphMode.NONE)
        .color_mode(BigValueColorMode.VALUE if bad is not None else BigValueColorMode.NONE)
        .thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
        .with_target(_query(expression, "", "A").instant())
    )


#: A restart is a new start time. Grafana's models leave out what the annotations of each data
#: source add to theirs; the keys are those of the Prometheus data source.
RESTARTS = {
    "expr": f"changes(process_start_time_seconds{{{_HERE}}}[$__rate_interval]) > 0",
    "titleFormat": "Restart of {{deployment}}",
    "textFormat": "{{instance}}",
    "step": "30s",
}


def _restarts() -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery()
        .name("Restarts")
        .datasource(_SOURCE)
        .enable(True)
        .icon_color("orange")
    )


def _variable(name: str, label: str, metric: str) -> dashboard.QueryVariable:
    """A variable for the values of a label; all are selected at first."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(_SOURCE)
        .query(f"label_values({metric}, {name})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _panels() -> list[stat.Panel | timeseries.Panel | dashboard.Row]:
    requests, calls = "optillm_requests_total", "optillm_upstream_calls_total"
    tokens, seconds = "optillm_upstream_tokens_total", "optillm_request_duration_seconds"
    call_seconds, amplification = (
        "optillm_upstream_call_duration_seconds",
        "optillm_upstream_calls_per_request",
    )
    failed = f'{_THESE},status!="2xx"'
    runs = _number("Runs", "The version of OptiLLM, and its release.", "none", _BUILD)
    runs.text_mode(BigValueTextMode.NAME).span(6).targets(
        [_query(_BUILD, "{{optillm}} ({{release}})", "A").instant()]
    )
    return [
        runs,
        _number(
            "Uptime",
            "Time since the serving process started.",
            "s",
            f"min(time() - process_start_time_seconds{{{_HERE}}})",
        ),
        _number(
            "In flight",
            "Requests in flight now.",
            "short",
            f"sum(optillm_requests_in_flight{{{_THESE}}})",
        ),
        _number(
            "Requests",
            "Requests that ran a strategy, in the selected period.",
            "short",
            _in_range(requests),
        ),
        _number(
            "Failed",
            "Share of the requests that failed.",
            "percentunit",
            f"({_in_range(requests, failed)} or vector(0)) / {_in_range(requests)}",
            bad=0.05,
            decimals=1,
        ),
        _number(
            "Tokens",
            "Tokens that the upstream reported, in the selected period.",
            "short",
            _in_range(tokens),
            decimals=1,
        ),
        _number(
            "Loops stopped",
            "Requests that came back to OptiLLM. `optictl check --only routing` finds the route.",
            "short",
            _in_range("optillm_loops_broken_total", _HERE),
            bad=0.5,
        ),
        dashboard.Row("Checks and workers"),
        _graph(
            "Checks that do not pass",
            "The metrics of `optictl check` (`monitoring.textfile`). No line: all pass.",
            "short",
            (
                _happened(
                    "max by (deployment, id, status) "
                    f'(optillm_check_status{{{_DEPLOYMENT},status=~"fail|error|warn"}})'
                ),
                "{{deployment}} {{id}} {{status}}",
            ),
        ),
        _graph(
            "Age of the last run of the checks",
            "The timer runs them every minute.",
            "s",
            (
                "time() - max by (deployment) "
                f"(optillm_check_last_run_timestamp_seconds{{{_DEPLOYMENT}}})",
                "{{deployment}}",
            ),
        ),
        _graph(
            "Workers",
            "Processes that serve, and those that the service was started with (`workers`).",
            "short",
            (
                f"count by (deployment) (process_start_time_seconds{{{_HERE}}})",
                "{{deployment}} serve",
            ),
            (f"max by (deployment) (optillm_workers{{{_HERE}}})", "{{deployment}} wanted"),
        ),
        dashboard.Row("Requests"),
        _graph(
            "Requests per minute",
            "Requests that ran a strategy.",
            "short",
            (_per_minute(requests, "strategy", "base_model"), "{{strategy}}-{{base_model}}"),
        ),
        _graph(
            "Failed requests per minute, by error code",
            "Requests that ran a strategy and failed.",
            "short",
            (
                _happened(_per_minute("optillm_request_errors_total", "strategy", "code")),
                "{{strategy}} {{code}}",
            ),
        ),
        _graph(
            "Refused requests per minute, by reason",
            "Requests that the guard refused; they caused no upstream call.",
            "short",
            (_happened(_per_minute("optillm_refusals_total", "code", labels=_HERE)), "{{code}}"),
        ),
        dashboard.Row("Effect"),
        _graph(
            "What strategies lost, by code",
            "Share of the answers with this code. `optictl smoke` names the cause and the fix.",
            "percentunit",
            (_share_of_answers("optillm_degraded_total", "code"), "{{strategy}} {{code}}"),
            span=12,
        ),
        _graph(
            "Fixes per minute",
            "Requests in which a fix acted (`effect` in optictl.yaml).",
            "short",
            (
                _happened(_per_minute("optillm_fixed_total", "strategy", "fix")),
                "{{strategy}} {{fix}}",
            ),
            span=12,
        ),
        dashboard.Row("Latency"),
        _graph(
            "Request duration",
            "From the arrival of a request to its answer: median (p50) and 95th percentile (p95).",
            "s",
            (_quantile(0.5, seconds, "strategy"), "{{strategy}} p50"),
            (_quantile(0.95, seconds, "strategy"), "{{strategy}} p95"),
            span=12,
        ),
        _graph(
            "Upstream call duration",
            "One call of a base model, measured by the guard.",
            "s",
            (_quantile(0.5, call_seconds, "base_model"), "{{base_model}} p50"),
            (_quantile(0.95, call_seconds, "base_model"), "{{base_model}} p95"),
            span=12,
        ),
        dashboard.Row("Cost"),
        _graph(
            "Upstream calls per request",
            "The amplification: the average number of upstream calls of one request.",
            "short",
            (_each(f"{amplification}_sum", f"{amplification}_count"), "{{strategy}}"),
        ),
        _graph(
            "Tokens per minute",
            "Tokens that the upstream reported.",
            "short",
            (_happened(_per_minute(tokens, "strategy", "kind")), "{{strategy}} {{kind}}"),
        ),
        _graph(
            "Tokens per request",
            "Prompt and completion tokens.",
            "short",
            (_happened(_each(tokens, requests)), "{{strategy}}"),
        ),
        dashboard.Row("Upstream"),
        _graph(
            "Upstream calls per minute, by status",
            "Status `none`: the upstream did not answer.",
            "short",
            (_happened(_per_minute(calls, "base_model", "status")), "{{base_model}} {{status}}"),
        ),
        _graph(
            "Failed upstream calls per minute, by reason",
            "Calls without a usable answer. A strategy may have continued without them.",
            "short",
            (
                _happened(_per_minute("optillm_upstream_failures_total", "base_model", "reason")),
                "{{base_model}} {{reason}}",
            ),
        ),
        _graph(
            "In flight",
            (
                "Requests in flight, requests in the queue (limits.max_in_flight), "
                "open upstream calls."
            ),
            "short",
            (f"sum(optillm_requests_waiting{{{_HERE}}})", "in the queue"),
            (
                f"sum by (strategy) (optillm_requests_in_flight{{{_THESE}}})",
                "{{strategy}} requests",
            ),
            (
                f"sum by (strategy) (optillm_upstream_calls_in_flight{{{_THESE}}})",
                "{{strategy}} calls",
            ),
        ),
        dashboard.Row("Process"),
        _graph(
            "Memory",
            "Resident memory.",
            "bytes",
            (f"sum by (instance) (process_resident_memory_bytes{{{_HERE}}})", "{{instance}}"),
        ),
        _graph(
            "CPU",
            "Busy cores.",
            "short",
            (
                f"sum by (instance) (rate(process_cpu_seconds_total{{{_HERE}}}[$__rate_interval]))",
                "{{instance}}",
            ),
        ),
        _graph(
            "Open files",
            "Open files of the process with the most, and the limit.",
            "short",
            (f"max by (instance) (process_open_fds{{{_HERE}}})", "{{instance}}"),
            (f"min by (instance) (process_max_fds{{{_HERE}}})", "{{instance}} limit"),
        ),
    ]


def page() -> str:
    """The dashboard as JSON."""
    board = (
        dashboard.Dashboard("OptiLLM behind optictl")
        .uid("optictl-optillm")
        .description("Activity, cost and latency of each strategy, from the guard's metrics.")
        .tags(["optillm", "optictl"])
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        )
        .annotation(_restarts())
        .with_variable(_variable("deployment", "Deployment", "optillm_build_info"))
        .with_variable(_variable("instance", "Instance", f"optillm_build_info{{{_DEPLOYMENT}}}"))
        .with_variable(_variable("strategy", "Strategy", f"optillm_requests_total{{{_HERE}}}"))
        .with_variable(_variable("base_model", "Base model", f"optillm_requests_total{{{_HERE}}}"))
    )
    for number, panel in enumerate(_panels(), start=1):
        if isinstance(panel, dashboard.Row):
            board.with_row(panel.id(number))
        else:
            board.with_panel(panel.id(number))
    built = json.loads(JSONEncoder().encode(board.build()))
    built["annotations"]["list"][0] |= RESTARTS
    return json.dumps(built, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
