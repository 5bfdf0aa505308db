"""Results in the words of monitoring systems."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from optictl.checks import nagios, prometheus
from optictl.results import SEVERITY, Result, Status

#: Of the Monitoring Plugins' guidelines: label=value[unit];[warn];[crit];[min];[max]
PERFDATA = re.compile(r"[a-z]+=\d+(\.\d+)?s?;;;0")


def results(*statuses: Status) -> list[Result]:
    return [
        Result(f"family.n{i}", "A title", s, found="a | pipe\nand a line")
        for i, s in enumerate(statuses)
    ]


@pytest.mark.parametrize(
    ("statuses", "code", "word"),
    [
        (["pass", "skip"], 0, "OK"),
        (["pass", "warn"], 1, "WARNING"),
        (["warn", "error", "fail"], 2, "CRITICAL"),
        (["pass", "warn", "error"], 3, "UNKNOWN"),
        (["skip"], 3, "UNKNOWN"),
        ([], 3, "UNKNOWN"),
    ],
)
def test_a_plugin_says_one_line_and_its_exit_code(
    statuses: list[Status], code: int, word: str
) -> None:
    found = results(*statuses)
    assert nagios.nagios_code(found) == code
    line = nagios.nagios(found, "optillm-b", 0.25)
    assert line.count("\n") == line.count("|") == 1
    text, _, data = line.partition(" | ")
    assert text.startswith(f"OPTILLM {word} - optillm-b: ")
    assert all(PERFDATA.fullmatch(item) for item in data.split())
    values = dict(item.split("=") for item in data.split())
    assert values["time"] == "0.250s;;;0"
    assert {s: int(values[s].split(";")[0]) for s in SEVERITY} == {
        s: statuses.count(s) for s in SEVERITY
    }


@pytest.mark.parametrize(
    ("rounds", "verdicts"),
    [
        ("ggg", "..."),
        ("bbb", "..F"),
        # one round of the other kind begins the count anew, in both directions
        ("bbgbbgbbb", "........F"),
        ("bbbgbgbgg", "..FFFFFF."),
        ("bbbggbbb", "..FF...F"),
    ],
)
def test_a_verdict_changes_after_enough_rounds_in_a_row(rounds: str, verdicts: str) -> None:
    state, seen = nagios.hysteresis(None), ""
    for one in rounds:
        state = nagios.hysteresis(state.after(one == "g", fail_after=3, well_after=2).dump())
        seen += "F" if state.failed else "."
    assert seen == verdicts


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", '{"failed": true}', '{"failed": 1, "against": "x"}']
)
def test_what_no_round_left_is_a_fresh_start(text: str | None) -> None:
    assert nagios.hysteresis(text) == nagios.Hysteresis()


def families(text: str) -> dict[str, Metric]:
    """The metrics of an exposition, as two parsers of Prometheus's own client read it.

    The one for OpenMetrics is strict: it refuses duplicates, metrics without a description, and
    samples outside their family.
    """
    assert text.endswith("\n")
    found = list(text_string_to_metric_families(text))
    strict = list(openmetrics.text_string_to_metric_families(f"{text}# EOF\n"))
    assert [(m.name, m.type, m.samples) for m in found] == [
        (m.name, m.type, m.samples) for m in strict
    ]
    samples = [(s.name, frozenset(s.labels.items())) for m in found for s in m.samples]
    assert len(samples) == len(set(samples))
    assert all(m.documentation and m.type == "gauge" for m in found)
    assert (
        len({m.name for m in found}) == len(found) == text.count("# HELP ") == text.count("# TYPE ")
    )
    return {m.name: m for m in found}


def test_the_metrics_are_a_strict_exposition_and_each_check_is_in_one_state() -> None:
    metrics = families(
        prometheus.prometheus(results("pass", "fail", "skip"), "optillm-b", 1.5, 1700000000.0)
    )
    states = {
        s.labels["id"]: s.labels["status"]
        for s in metrics["optillm_check_status"].samples
        if s.value == 1
    }
    assert states == {"family.n0": "pass", "family.n1": "fail", "family.n2": "skip"}
    assert len(metrics["optillm_check_status"].samples) == 3 * len(SEVERITY)
    single = {
        name: m.samples[0].value for name, m in metrics.items() if len(m.samples[0].labels) == 1
    }
    # two deployments on a host have metrics of the same names
    names = {s.labels["deployment"] for m in metrics.values() for s in m.samples}
    assert names == {"optillm-b"}
    assert single == {
        "optillm_check_healthy": 0,
        "optillm_check_duration_seconds": 1.5,
        "optillm_check_last_run_timestamp_seconds": 1700000000,
    }


@given(
    st.lists(
        st.text(alphabet=st.sampled_from('a."\\\n{},= #ü'), min_size=1),
        min_size=1,
        max_size=4,
        unique=True,
    )
)
def test_no_text_breaks_the_metrics(ids: list[str]) -> None:
    found = [Result(id, "A title", "fail", found=id) for id in ids]
    status = families(prometheus.prometheus(found, "optillm-proxy", 0, 0))["optillm_check_status"]
    assert [s.labels["id"] for s in status.samples if s.value == 1] == ids


@given(
    st.text(alphabet=st.sampled_from("a|=;'\n\t ü")),
    st.sampled_from(["pass", "warn", "fail", "error", "skip"]),
)
def test_no_text_breaks_the_line_of_a_plugin(found: str, status: Status) -> None:
    line = nagios.nagios(
        [Result("a.b", "A title", status, found=found, cause=found, remedy=found)],
        "optillm-proxy",
        0.25,
    )
    assert line.count("\n") == line.count("|") == 1
    assert all(PERFDATA.fullmatch(item) for item in line.partition("|")[2].split())
