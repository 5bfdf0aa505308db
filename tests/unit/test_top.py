"""Two snapshots, one screen: rates, quantiles, restarts, and what cannot be known."""

from __future__ import annotations

import contextlib
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest

from optictl import records
from optictl.deployment import paths
from optictl.deployment.config import Config
from optictl.errors import MissingFact
from optictl.facts import guard_state
from optictl.facts.guard_state import GuardState
from optictl.guard import metrics
from optictl.host.network import Response
from optictl.host.systemd import Unit
from optictl.observe.top import model, run
from optictl.observe.top.model import Counts, Snapshot
from optictl.output import figures as output_figures
from optictl.output import observations
from tests.integration.cli.helpers import ESCAPE

STATE = {
    "schema": 1,
    "optillm": "0.3.12",
    "uptime": 3725.5,
    "ready": True,
    "strategies": ["bon", "moa"],
    "in_flight": [
        {
            "trace": "aa11",
            "strategy": "moa",
            "base_model": "jerry-xl",
            "age": 1.5,
            "upstream_calls": 1,
            "upstream_open": 1,
        },
        {
            "trace": "bb22",
            "strategy": "bon",
            "base_model": "jerry-xl",
            "age": 90.25,
            "upstream_calls": 4,
            "upstream_open": 0,
        },
    ],
}
UNIT = Unit(
    "optillm-proxy.service",
    active_state="active",
    sub_state="running",
    restarts=2,
    memory_current=179306496,
)


def exposed(requests: int, calls: list[float], tokens: int = 0, refused: int = 0) -> str:
    """The guard's metrics, written by the library that the guard writes them with."""
    registry = CollectorRegistry()
    labels = ("strategy", "base_model")
    request = Counter("optillm_requests", "x", (*labels, "status"), registry=registry)
    request.labels("moa", "jerry-xl", "2xx").inc(requests)
    request.labels("moa", "tom", "5xx").inc(1)
    call = Counter("optillm_upstream_calls", "x", (*labels, "status"), registry=registry)
    call.labels("moa", "jerry-xl", "2xx").inc(len(calls))
    Counter("optillm_upstream_tokens", "x", (*labels, "kind"), registry=registry).labels(
        "moa", "tom", "prompt"
    ).inc(tokens)
    Counter("optillm_refusals", "x", ("code",), registry=registry).labels("invalid_api_key").inc(
        refused
    )
    seconds = Histogram(
        "optillm_upstream_call_duration_seconds",
        "x",
        labels,
        buckets=(0.1, 1, 10),
        registry=registry,
    )
    for one in calls:
        seconds.labels("moa", "jerry-xl").observe(one)
    return generate_latest(registry).decode()


def shot(
    at: float, text: str = "", state: dict[str, Any] = STATE, unit: Unit | None = UNIT
) -> Snapshot:
    return Snapshot(at, "", records.parse(GuardState, state), model.parse(text), unit)


class TestMetrics:
    def test_what_counts(self) -> None:
        counts = model.parse(exposed(3, [0.05, 0.5, 20], tokens=7, refused=2))[""]
        assert (counts.requests, counts.failed) == ({"moa": 4}, {"moa": 1})
        assert (counts.calls, counts.tokens, counts.refusals) == ({"moa": 3}, {"moa": 7}, 2)
        assert counts.buckets == {0.1: 1, 1: 2, 10: 2, math.inf: 3}

    def test_none_at_all(self) -> None:
        assert model.parse("") == {}

    @pytest.mark.parametrize("text", ["<html>", '{"error": 1}', "optillm_requests_total{ 3"])
    def test_something_else_is_told(self, text: str) -> None:
        with pytest.raises(ValueError):
            model.parse(text)


class TestEffect:
    """Requests without effect, of the last ones that the guard judged."""

    @staticmethod
    def seen(effect: Any) -> model.Screen:
        state = STATE if effect is None else {**STATE, "effect": effect}
        return model.screen(None, shot(100, exposed(1, []), state))

    @staticmethod
    def counted(strategy: str, base_model: str, requests: int, degraded: int) -> dict[str, Any]:
        fields = {"strategy": strategy, "base_model": base_model, "weak": 1, "codes": {}}
        return {**fields, "requests": requests, "degraded": degraded}

    def test_all_base_models_of_a_strategy_together(self) -> None:
        counted = [
            self.counted("moa", "jerry-xl", 40, 3),
            self.counted("moa", "tom", 2, 2),
            self.counted("bon", "jerry-xl", 7, 0),
        ]
        screen = self.seen(counted)
        assert {r.strategy: (r.degraded, r.judged) for r in [*screen.rates, screen.total]} == {
            "moa": (5, 42),
            "bon": (0, 7),
            "all": (5, 49),
        }
        assert " no_effect=5/49 " in observations._top_line(screen)
        assert screen.as_dict()["total"]["judged"] == 49

    def test_nothing_was_judged_yet(self) -> None:
        screen = self.seen([])
        assert (screen.total.degraded, screen.total.judged) == (0, 0)

    def test_an_older_guard_does_not_judge(self) -> None:
        screen = self.seen(None)
        assert (screen.total.degraded, screen.total.judged) == (None, None)
        assert " no_effect=- " in observations._top_line(screen)


class TestScreen:
    def test_rates_are_those_between_the_two(self) -> None:
        seen = model.screen(
            shot(100, exposed(2, [5], 100)), shot(130, exposed(8, [5, 0.5, 0.5, 0.5], 1100, 3))
        )
        moa = next(r for r in seen.rates if r.strategy == "moa")
        assert (moa.requests, moa.failed, moa.calls, moa.tokens, moa.in_flight) == (
            12,
            0,
            6,
            2000,
            1,
        )
        assert (seen.total.requests, seen.total.tokens, seen.total.in_flight) == (12, 2000, 2)
        assert (seen.refused, seen.upstream_failed, seen.seconds) == (6, 0, 30)
        assert seen.p50 == pytest.approx(0.55)
        assert seen.p95 == pytest.approx(0.955)

    def test_what_the_service_is(self) -> None:
        seen = model.screen(None, shot(100))
        assert (seen.state, seen.ready, seen.uptime, seen.restarts) == (
            "active (running)",
            True,
            3725.5,
            2,
        )
        assert seen.memory == 179306496
        assert [(w.trace, w.model, w.age, w.calls, w.waiting) for w in seen.in_flight] == [
            ("bb22", "bon-jerry-xl", 90.25, 4, 0),
            ("aa11", "moa-jerry-xl", 1.5, 1, 1),
        ]

    def test_the_first_look_knows_no_rates(self) -> None:
        seen = model.screen(None, shot(100, exposed(3, [1])))
        assert (seen.total.requests, seen.refused, seen.p50, seen.seconds) == (None, None, None, 0)

    def test_a_service_that_began_anew_counts_from_there(self) -> None:
        seen = model.screen(shot(100, exposed(50, [1] * 9, 900)), shot(160, exposed(2, [0.5], 30)))
        assert (seen.total.requests, seen.total.tokens) == (3, 30)
        assert seen.p50 is not None

    def test_workers_are_one_service(self) -> None:
        def joined(*texts: str) -> str:
            return metrics.joined(
                {place: text.encode() for place, text in enumerate(texts)}
            ).decode()

        before = joined(exposed(2, [0.5], 100), exposed(70, [0.5] * 9, 900, 4))
        # the second one was started anew meanwhile
        now = joined(exposed(8, [0.5] * 3, 700), exposed(3, [0.5] * 2, 60, 1))
        state = {**STATE, "workers": {"wanted": 2, "serving": 1}}
        seen = model.screen(shot(100, before), shot(160, now, state=state))
        assert (seen.total.requests, seen.total.calls, seen.total.tokens, seen.refused) == (
            6 + 3 + 1,
            2 + 2,
            660,
            1,
        )
        assert (seen.workers, seen.workers_wanted) == (1, 2)
        # one that was not there before: how much of it is new, nobody knows
        came = model.screen(
            shot(100, joined(exposed(2, []))), shot(160, joined(exposed(4, []), exposed(70, [])))
        )
        assert came.total.requests == 2

    def test_one_that_does_not_answer_has_no_rates(self) -> None:
        for before, now in ((shot(1), Snapshot(2, "refused")), (Snapshot(1, "refused"), shot(2))):
            assert model.screen(before, now).total.requests is None
        gone = model.screen(shot(1), Snapshot(2, "refused"))
        assert (gone.state, gone.ready, gone.problem, gone.in_flight) == (
            "not answering",
            False,
            "refused",
            [],
        )

    def test_without_systemd_the_process_tells_its_memory(self) -> None:
        seen = model.screen(None, shot(1, "process_resident_memory_bytes 1e8\n", unit=None))
        assert (seen.state, seen.restarts, seen.memory) == ("running", None, 1e8)

    def test_a_strategy_in_flight_that_was_never_counted_is_there(self) -> None:
        assert [
            r.strategy for r in model.screen(None, shot(1, state={**STATE, "strategies": []})).rates
        ] == ["moa", "bon"]

    def test_what_an_older_guard_does_not_report_is_unknown(self) -> None:
        seen = model.screen(None, shot(1))
        assert (seen.queued, seen.max_in_flight, seen.workers, seen.workers_wanted) == (None,) * 4
        later = {**STATE, "waiting": 3, "max_in_flight": 8, "workers": {"wanted": 2, "serving": 1}}
        seen = model.screen(None, shot(1, state=later))
        assert (seen.queued, seen.max_in_flight, seen.workers, seen.workers_wanted) == (3, 8, 1, 2)


GUARD = {"x-optillm-guard": "3"}


class TestGuardState:
    def test_fields_of_a_later_guard_are_ignored(self) -> None:
        later = {**STATE, "colour": "green", "in_flight": [{**STATE["in_flight"][0], "queue": 1}]}
        state = guard_state.parse(Response(200, json.dumps(later), GUARD))
        assert [request.trace for request in state.in_flight] == ["aa11"]

    @pytest.mark.parametrize("name", ["ready", "uptime", "in_flight"])
    def test_an_incomplete_state_is_none(self, name: str) -> None:
        text = json.dumps({key: value for key, value in STATE.items() if key != name})
        with pytest.raises(MissingFact, match=f"the guard's state cannot be read: {name}: "):
            guard_state.parse(Response(200, text, GUARD))

    @given(
        st.dictionaries(
            st.sampled_from([*STATE]),
            st.none() | st.integers() | st.text() | st.lists(st.none() | st.text()),
        )
        | st.text()
        | st.none()
        | st.lists(st.integers())
    )
    def test_no_state_breaks_it(self, data: object) -> None:
        with contextlib.suppress(MissingFact):
            state = guard_state.parse(Response(200, json.dumps(data), GUARD))
            model.screen(shot(1), Snapshot(2, "", state)).as_dict()

    def test_another_program_on_the_port(self) -> None:
        with pytest.raises(MissingFact, match="a program without the guard"):
            guard_state.parse(Response(200, "{}"))


class TestQuantile:
    @given(st.lists(st.floats(0, 50), min_size=1), st.lists(st.floats(0, 50)), st.floats(0, 1))
    def test_it_lies_in_the_bucket_of_the_true_one(
        self, later: list[float], earlier: list[float], share: float
    ) -> None:
        bounds = [1.0, 5.0, 10.0, math.inf]

        def buckets(values: list[float]) -> dict[float, float]:
            return {bound: sum(v <= bound for v in values) for bound in bounds}

        before, now = Counts(buckets=buckets(earlier)), Counts(buckets=buckets(earlier + later))
        found = model.quantile(model.grown({"": before}, {"": now}).buckets, share)
        true = sorted(later)[max(0, math.ceil(share * len(later)) - 1)]
        bucket = next(i for i, bound in enumerate(bounds) if true <= bound)
        assert found is not None
        assert (0, 1, 5, 10)[bucket] <= found <= (1, 5, 10, 10)[bucket] + 1e-9 or share == 0

    def test_nothing_observed(self) -> None:
        assert model.quantile({1: 0, math.inf: 0}, 0.5) is None
        assert model.quantile({}, 0.5) is None


class TestWindow:
    @pytest.mark.parametrize(
        ("apart", "over"), [(20, [0, 20, 40, 60, 60, 60]), (100, [0, 100, 100, 100, 100, 100])]
    )
    def test_rates_are_over_a_minute_or_over_an_interval(
        self, apart: int, over: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        times = iter(range(6))
        monkeypatch.setattr(
            run, "take_snapshot", lambda *_: shot(apart * next(times), exposed(0, []))
        )
        seen: list[float] = []
        run.watch(
            Config(),
            paths.system(tmp_path),
            "",
            interval=0,
            count=6,
            show=lambda screen, mode: seen.append(screen.seconds) if mode.fresh else None,
            wait=lambda _: "",
        )
        assert seen == over


class TestUnits:
    """A restart has two processes on one socket: the service, and its sibling."""

    SIBLING = Unit(
        "optillm-proxy-next.service",
        load_state="loaded",
        active_state="active",
        sub_state="running",
        main_pid=2,
        restarts=1,
        status_text="serving, 1 request",
        memory_current=1000,
    )

    def test_the_sibling_is_seen_beside_the_service(self) -> None:
        drains = replace(
            UNIT,
            active_state="deactivating",
            sub_state="stop-sigterm",
            main_pid=1,
            status_text="draining, 2 requests",
        )
        screen = model.screen(None, replace(shot(1, unit=drains), others=(self.SIBLING,)))
        assert screen.noted == [drains.name, self.SIBLING.name]
        assert (screen.restarts, screen.memory) == (3, 179306496 + 1000)
        assert {unit.name: unit.doing for unit in screen.units} == {
            drains.name: "draining, 2 requests",
            self.SIBLING.name: "serving, 1 request",
        }
        line = observations._top_line(screen)
        shown = "optillm-proxy.service:deactivating(stop-sigterm),optillm-proxy-next.service:active"
        assert f" units={shown}(running)" in line
        assert screen.as_dict()["units"][1]["state"] == "active (running)"

    def test_a_unit_that_failed_is_seen_and_others_are_not(self) -> None:
        relay = Unit("optillm-proxy-upstream.service", active_state="failed", sub_state="failed")
        socket = Unit("optillm-proxy.socket", active_state="active", sub_state="running")
        ended = replace(self.SIBLING, active_state="inactive")
        screen = model.screen(None, replace(shot(1), others=(ended, socket, relay)))
        assert screen.noted == [relay.name]
        assert model.screen(None, replace(shot(1), others=(socket,))).noted == []

    def test_two_processes_that_answer_in_turn_are_told_apart(self) -> None:
        def at(seconds: float, started: float, requests: int) -> Snapshot:
            text = f"process_start_time_seconds {started}\n"
            return shot(seconds, exposed(requests, []) + text)

        # the sibling has counted less, and the service answers again: nothing is known of it
        assert model.screen(at(0, 100, 5000), at(60, 160, 7)).total.requests == 8
        assert model.screen(at(0, 160, 7), at(60, 100, 5000)).total.requests == 0
        assert model.screen(at(0, 100, 5000), at(60, 100, 5003)).total.requests == 3


class TestKeys:
    def watch(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, typed: str, **options: Any
    ) -> list[run.Mode]:
        """The modes in which screens were shown while these keys were typed, "." for none."""
        monkeypatch.setattr(run, "take_snapshot", lambda *_: shot(1))
        keys, seen = iter([*typed.replace(".", " "), "q"]), list[run.Mode]()
        run.watch(
            Config(),
            paths.system(tmp_path),
            "",
            interval=60,
            count=None,
            show=lambda _, mode: seen.append(mode),
            wait=lambda _: next(keys).strip(),
        )
        return seen

    def test_a_pause_takes_no_snapshot_and_draws_again(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        seen = self.watch(monkeypatch, tmp_path, "p..p.")
        assert [mode.fresh for mode in seen] == [True, *[False] * 5]
        assert [mode.paused for mode in seen] == [False, True, True, True, False, False]

    def test_a_question_mark_shows_the_help_and_leaves_it(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        seen = self.watch(monkeypatch, tmp_path, "?.?h")
        assert [mode.help for mode in seen] == [False, True, True, False, True]

    @pytest.mark.parametrize("width", [40, 60, 80, 120])
    def test_the_help_fits(self, width: int) -> None:
        from rich.console import Console

        console = Console(width=width, height=40, color_system=None, force_terminal=True)
        with console.capture() as shown:
            console.print(observations._top_help(width))
        lines = ESCAPE.sub("", shown.get()).splitlines()
        assert max(map(len, lines)) <= width
        assert width < 80 or len(lines) <= 24
        assert "estimate" in shown.get()

    def test_a_pipe_gets_each_screen_once(self) -> None:
        written: list[model.Screen] = []
        show, screen = observations._when_fresh(written.append), model.screen(None, shot(1))
        show(screen, run.Mode())
        show(screen, run.Mode(fresh=False))
        assert written == [screen]


class TestShown:
    def test_quantiles_are_marked_as_estimates(self) -> None:
        from rich.console import Console

        before, now = shot(0, exposed(0, [])), shot(60, exposed(1, [0.5, 0.5, 0.5, 20, 20]))
        screen = model.screen(before, now)
        console = Console(width=80, height=24, color_system=None)
        with console.capture() as shown:
            console.print(*observations._head(screen, "optillm-proxy"))
        assert "p50 ~0.85 s, p95 >10.00 s" in shown.get()
        assert " est_call_p50_s=0.850 est_call_p95_s=10.000 " in observations._top_line(screen)

    @pytest.mark.parametrize("width", [60, 80, 120])
    @pytest.mark.parametrize("many", [0, 3, 500])
    def test_it_fits_24_lines(self, width: int, many: int) -> None:
        from rich.console import Console

        waiting = [
            {
                **STATE["in_flight"][0],
                "base_model": "a-name-that-is-wider-than-the-screen" * 3,
                "age": 1e6,
                "trace": "feedface",
            }
            for _ in range(many)
        ]  # type: ignore[index]
        state = {**STATE, "in_flight": waiting, "strategies": [f"strategy-{n}" for n in range(15)]}
        screen = model.screen(
            shot(1, exposed(1, [1])), shot(61, exposed(10**6, [1] * 5, 10**9), state=state)
        )
        console = Console(width=width, height=24, color_system=None, force_terminal=True)
        with console.capture() as shown:
            console.print(observations._top_screen(screen, "optillm-proxy", 2, False, width, 24))
        lines = ESCAPE.sub("", shown.get()).splitlines()
        assert len(lines) <= 24
        assert all(len(line) <= width for line in lines)
        # a name that is wider than the screen is broken, and never cut; its figures are below it
        figures = [line for line in lines if "feedface" in line]
        assert figures == ["  age 11 d 13 h  calls 1  waiting 1  trace feedface"] * len(figures)
        names = re.findall("a-name-that-is-wider-than-the-screen", "".join(map(str.strip, lines)))
        assert len(names) == 3 * len(figures)
        assert bool(figures) == bool(many)
        assert ("and 49" in shown.get()) == (many == 500)

    def test_spans(self) -> None:
        assert [output_figures.span(s) for s in (None, 0.4, 61, 3725.5, 90000)] == [
            "-",
            "0 s",
            "1 min 1 s",
            "1 h 2 min",
            "1 d 1 h",
        ]

    def test_a_line_is_one_line(self) -> None:
        line = observations._top_line(model.screen(shot(1), Snapshot(2, "a\nproblem\x1b[31m")))
        assert line.count("\n") == 0
        assert "\x1b" not in line
        assert " ready=no " in line
