"""The journal's entries: which are wanted, and how a request looks in columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optictl.deployment import paths
from optictl.facts import units as unit_facts
from optictl.observe import logs
from optictl.observe.logs import Entry, Filter
from optictl.output import observations
from optictl.output.console import Terminal

REQUEST = {
    "event": "request",
    "id": "0123456789abcdef",
    "strategy": "self_consistency",
    "base_model": "jerry-xl",
    "status": 200,
    "seconds": 1234.567,
    "upstream_calls": 5,
    "upstream_failures": 0,
    "upstream_statuses": [200],
    "prompt_tokens": 1_000_000,
    "completion_tokens": 234_567,
}


def entry(**fields: Any) -> Entry:
    message = json.dumps({**REQUEST, **fields})
    return logs.entry({"MESSAGE": message, "__REALTIME_TIMESTAMP": "1700000000000000"})


def refused(status: int = 401, code: str = "invalid_api_key") -> Entry:
    return logs.entry({"MESSAGE": json.dumps({"event": "refused", "status": status, "code": code})})


def text(words: str) -> Entry:
    return logs.entry({"MESSAGE": words})


@pytest.mark.parametrize(
    ("wanted", "takes"),
    [
        (Filter(), [True, True, True, True]),
        (Filter(errors=True), [False, True, True, False]),
        (Filter(strategies=("moa",)), [False, True, False, False]),
        (Filter(strategies=("moa", "self_consistency")), [True, True, False, False]),
        (Filter(statuses=("200",)), [True, False, False, False]),
        (Filter(statuses=("5xx", "401")), [False, True, True, False]),
        (Filter(statuses=("4XX",)), [False, False, True, False]),
        (Filter(trace="0123"), [True, False, False, False]),
        (Filter(trace="fe"), [False, True, False, False]),
        (Filter(strategies=("moa",), statuses=("200",)), [False, False, False, False]),
    ],
)
def test_filters(wanted: Filter, takes: list[bool]) -> None:
    entries = [
        entry(),
        entry(strategy="moa", status=502, trace="fedc"),
        refused(),
        text("Started OptiLLM."),
    ]
    assert [wanted.takes(one) for one in entries] == takes


@pytest.mark.parametrize(
    ("fields", "last"),
    [
        ({"effect": "full", "degraded": []}, ""),
        ({"effect": "none", "degraded": ["critique_empty", "step_failed"]}, "no effect: "),
        ({"effect": "weak", "degraded": ["step_failed"]}, "weak: step_failed"),
        # the error of a request says more than what was lost on the way
        ({"effect": "none", "degraded": ["samples_empty"], "code": "strategy_failed"}, "strategy"),
        ({"effect": None, "degraded": None}, ""),
        ({"effect": 5, "degraded": "text"}, ""),
    ],
)
def test_a_lost_effect_is_in_the_last_column(fields: dict[str, Any], last: str) -> None:
    cells = logs.cells(entry(**fields))
    assert cells is not None
    assert cells[-1].startswith(last)
    assert bool(cells[-1]) == bool(last)


def test_every_code_of_a_request_is_shown() -> None:
    cells = logs.cells(entry(effect="none", degraded=["critique_empty", "step_failed"]))
    assert cells is not None
    assert cells[-1] == "no effect: critique_empty,step_failed"
    assert not entry(effect="none", degraded=["critique_empty"]).bad


def test_a_request_fills_80_columns_at_the_most() -> None:
    cells = logs.cells(entry())
    assert cells == (
        "200",
        "self_consistency-jerry-xl",
        "1234.57",
        "5",
        "0",
        "1234567",
        "01234567",
        "",
    )
    assert len(logs.line(cells)) + len("11-26 17:20:00 ") <= 80
    assert len(logs.line(title for title, _ in logs.COLUMNS)) <= len(logs.line(cells))


def test_one_that_failed_says_why_after_all_else() -> None:
    assert logs.line(logs.cells(entry(status=502, code="upstream_failed")) or ()).endswith(
        "01234567 upstream_failed"
    )


def test_a_refusal_has_its_code() -> None:
    assert logs.line(logs.cells(refused()) or ()) == "401 invalid_api_key"


def test_a_trace_is_shown_where_there_is_one() -> None:
    assert "feedface" in (logs.cells(entry(trace="feedfacecafe")) or ())


@pytest.mark.parametrize(
    "one",
    [text("Started OptiLLM."), text('{"event": "serving", "port": 4020}'), text("{"), text("[1]")],
)
def test_anything_else_has_no_columns(one: Entry) -> None:
    assert logs.cells(one) is None


def test_nothing_that_is_not_known_is_in_the_columns() -> None:
    shown = logs.cells(entry(prompt="my secret", key="sk-1", messages=["my secret"]))
    assert "secret" not in str(shown)
    assert "sk-1" not in str(shown)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=2)
)


@given(
    st.dictionaries(st.sampled_from([*REQUEST, "trace", "code"]), JSON),
    st.sampled_from(["request", "refused", "loaded"]),
)
def test_no_line_breaks_it(fields: dict[str, Any], event: str) -> None:
    one = logs.entry({"MESSAGE": json.dumps({**fields, "event": event})})
    cells = logs.cells(one)
    assert (cells is None) == (event == "loaded")
    if cells is not None:
        logs.line(cells)
    assert isinstance(one.bad, bool)
    Filter(True, ("moa",), ("5xx",), "0").takes(one)


@pytest.mark.parametrize(
    ("word", "good"),
    [("200", True), ("5xx", True), ("5XX", True), ("xxx", False), ("99", False), ("", False)],
)
def test_statuses(word: str, good: bool) -> None:
    assert logs.is_status(word) is good


PATHS = paths.system(name="optillm-b")


def record(text: str, unit: str, *, manager: bool = False, **fields: str) -> dict[str, str]:
    """A record of the journal: of a unit, or of systemd about it."""
    own = {"UNIT": unit, "_SYSTEMD_UNIT": "init.scope"} if manager else {"_SYSTEMD_UNIT": unit}
    return {"MESSAGE": text, "PRIORITY": "6", "__CURSOR": text, **own, **fields}


#: The newest one last.
JOURNAL = [
    record(json.dumps(REQUEST), "optillm-b.service"),
    record("Starting optillm-b-check.service", "optillm-b-check.service", manager=True),
    record("fail  health.alive  no answer", "optillm-b-check.service"),
    record("Failed with result", "optillm-b-check.service", manager=True, PRIORITY="4"),
    record("Started optillm-b-next.service", "optillm-b-next.service", manager=True),
    record(json.dumps({**REQUEST, "status": 502}), "optillm-b-next.service"),
]


class Journal:
    """A systemd with only a journal."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def stream_journal(self, units: Sequence[str], *options: str) -> Iterator[dict[str, str]]:
        self.asked.append(tuple(units))
        yield from reversed(JOURNAL) if "--reverse" in options else JOURNAL


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> Journal:
    found = Journal()
    monkeypatch.setattr(unit_facts, "manager", lambda _: found)
    return found


@pytest.mark.parametrize("since", [None, "today"])
def test_the_entries_are_of_every_unit(journal: Journal, since: str | None) -> None:
    found = list(logs.read(PATHS, Filter(), follow=False, since=since, lines=50))
    assert [PATHS.short_unit(one.unit) for one in found] == ["", "check", "check", "next", "next"]
    assert journal.asked == [PATHS.unit_names]
    assert {"optillm-b-next.service", "optillm-b-upstream.socket"} <= set(PATHS.unit_names)
    assert found[-1].as_dict()["unit"] == "optillm-b-next.service"


def test_the_errors_of_every_unit(journal: Journal) -> None:
    found = list(logs.read(PATHS, Filter(errors=True), follow=False, since=None, lines=2))
    assert [(one.unit, one.status) for one in found] == [
        ("optillm-b-check.service", 0),
        ("optillm-b-next.service", 502),
    ]


def test_a_user_has_units_too() -> None:
    own = {"MESSAGE": "x", "_SYSTEMD_UNIT": "user@1000.service", "_SYSTEMD_USER_UNIT": "a.service"}
    assert logs.entry(own).unit == "a.service"
    assert logs.entry({"MESSAGE": "Started", "USER_UNIT": "b.socket"}).unit == "b.socket"


@pytest.mark.parametrize(
    ("unit", "short"),
    [
        ("optillm-b.service", ""),
        ("optillm-b.socket", "socket"),
        ("optillm-b-next.service", "next"),
        ("optillm-b-upstream.socket", "upstream.socket"),
        ("", ""),
    ],
)
def test_units_have_short_names(unit: str, short: str) -> None:
    assert PATHS.short_unit(unit) == short


def test_an_entry_of_another_unit_has_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    observations.logs(terminal, PATHS, map(logs.entry, JOURNAL))
    terminal.flush()
    lines = capsys.readouterr().out.splitlines()
    assert "[" not in lines[0]
    assert lines[2].endswith("[check] fail  health.alive  no answer")
    assert lines[5].endswith("01234567 [next]")
