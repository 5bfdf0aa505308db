"""Selecting and running checks: every check gives exactly one result, even when it crashes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from graphlib import TopologicalSorter
from typing import Any

import pytest

from optictl.checks import catalog, engine
from optictl.checks.engine import Check, Finding, Skip
from optictl.results import Result, Status, good

#: Scripts rely on these.
IDS = {
    "config.valid",
    "env.forbidden",
    "env.upstream-key",
    "bind.loopback",
    "proxy-config.litellm-only",
    "proxy-config.in-force",
    "key.strength",
    "key.not-in-argv",
    "files.ownership",
    "release.pinned",
    "release.starts",
    "process.non-root",
    "process.guarded",
    "workdir.empty",
    "health.alive",
    "health.locked",
    "health.connected",
    "upstream.base-model",
    "strategies.effect",
}


def check(
    run: Callable[[Any], Iterator[Finding]], name: str = "family.name", timeout: float = 10
) -> Check:
    return Check(name, "A title", "something", False, timeout, run)


def related(
    id: str,
    status: Status = "pass",
    requires: tuple[str, ...] = (),
    explained_by: tuple[str, ...] = (),
) -> Check:
    """A check that comes out as it is told."""
    return replace(
        check(lambda _: iter([Finding(f"{id} is {status}", status)]), id),
        requires=requires,
        explained_by=explained_by,
    )


def outcome(run: Callable[[Any], Iterator[Finding]], timeout: float = 10) -> Result:
    """The one result of a check."""
    (result,) = engine.run([check(run, timeout=timeout)], subject=None)
    assert (result.id, result.title, result.expected) == ("family.name", "A title", "something")
    return result


def finds(*findings: Finding) -> Result:
    return outcome(lambda _: iter(findings))


class TestOutcome:
    def test_a_good_finding_passes(self) -> None:
        result = finds(Finding("all well"))
        assert (result.status, result.found, result.remedy) == ("pass", "all well", "")

    def test_a_check_that_finds_nothing_passes(self) -> None:
        assert (finds().status, finds().found) == ("pass", "as expected")

    @pytest.mark.parametrize(
        ("statuses", "worst"),
        [
            (["pass", "warn"], "warn"),
            (["fail", "warn", "pass"], "fail"),
            (["warn", "error", "fail"], "error"),
            (["pass", "skip"], "skip"),
            (["skip", "fail"], "fail"),
        ],
    )
    def test_the_worst_finding_wins(self, statuses: list[Status], worst: Status) -> None:
        result = finds(
            *(
                Finding(f"a {status}", status, f"mend {status}", f"why {status}")
                for status in statuses
            )
        )
        assert result.status == worst
        assert (result.found, result.remedy, result.cause) == (
            f"a {worst}",
            f"mend {worst}",
            f"why {worst}",
        )

    def test_findings_of_the_same_kind_are_all_told_and_a_remedy_once(self) -> None:
        result = finds(
            Finding("one", "fail", "mend it"), Finding("two", "fail", "mend it"), Finding("fine")
        )
        assert (result.found, result.remedy) == ("one; two", "mend it")

    def test_a_missing_precondition_is_a_skip_with_its_reason(self) -> None:
        def run(_: object) -> Iterator[Finding]:
            raise Skip("there is no file")
            yield

        result = outcome(run)
        assert (result.status, result.found) == ("skip", "there is no file")
        assert good([result])

    def test_no_permission_is_a_skip_that_names_the_file_and_sudo(self) -> None:
        def run(_: object) -> Iterator[Finding]:
            raise PermissionError(13, "Permission denied", "/etc/secret")
            yield

        result = outcome(run)
        assert result.status == "skip"
        assert "/etc/secret" in result.found
        assert "sudo" in result.remedy

    @pytest.mark.parametrize(
        "failure",
        [ValueError("broken"), KeyError("key"), RecursionError(), SystemExit(0), OSError(5, "io")],
    )
    def test_a_crash_is_an_error_and_never_silence(self, failure: BaseException) -> None:
        def run(_: object) -> Iterator[Finding]:
            yield Finding("good so far")
            raise failure

        result = outcome(run, timeout=5)
        assert result.status == "error"
        assert type(failure).__name__ in result.cause
        # it saw no fault: a headline must not name one
        assert result.fault == f"{result.id} could not be made"
        assert not good([result])

    def test_a_check_that_is_no_generator_is_judged_the_same(self) -> None:
        def run(_: object) -> Iterator[Finding]:
            raise ValueError("at once")

        assert outcome(run).status == "error"

    @pytest.mark.parametrize(
        "end", [Skip("no more to see"), PermissionError(13, "no", "/proc/1/environ")]
    )
    def test_what_was_found_bad_before_the_end_stays_found(self, end: Exception) -> None:
        def run(_: object) -> Iterator[Finding]:
            yield Finding("a bad one", "fail", "mend it")
            raise end

        result = outcome(run)
        assert (result.status, result.found) == ("fail", "a bad one")


class TestRun:
    def test_a_timeout_is_an_error(self) -> None:
        def run(_: object) -> Iterator[Finding]:
            time.sleep(3)
            yield Finding("late")

        started = time.monotonic()
        result = outcome(run, timeout=0.1)
        assert time.monotonic() - started < 2
        assert (result.status, result.found) == ("error", "no result after 0.1 s")
        assert result.fault == f"{result.id} could not be made"

    def test_one_crash_does_not_stop_the_others_and_the_order_stays(self) -> None:
        def crash(_: object) -> Iterator[Finding]:
            raise ValueError
            yield

        checks = [
            check(crash, "a"),
            check(lambda _: iter([Finding("fine")]), "b"),
            check(crash, "c"),
        ]
        assert [(r.id, r.status) for r in engine.run(checks, None)] == [
            ("a", "error"),
            ("b", "pass"),
            ("c", "error"),
        ]

    def test_they_run_side_by_side(self) -> None:
        meeting = threading.Barrier(4, timeout=5)

        def run(_: object) -> Iterator[Finding]:
            meeting.wait()
            yield Finding("met")

        results = engine.run([check(run, str(i)) for i in range(4)], None)
        assert {r.found for r in results} == {"met"}

    def test_no_checks_no_results(self) -> None:
        assert engine.run([], None) == []

    def test_each_is_given_the_subject(self) -> None:
        assert (
            engine.run([check(lambda subject: iter([Finding(subject)]))], "the subject")[0].found
            == "the subject"
        )


class TestPresuppositions:
    @pytest.mark.parametrize(
        ("status", "words"), [("fail", "which failed"), ("error", "which ended with an error")]
    )
    def test_a_red_one_is_a_skip_that_names_it(self, status: Status, words: str) -> None:
        results = engine.run([related("b", requires=("a",)), related("a", status)], None)
        assert [(r.id, r.status, r.root_cause) for r in results] == [
            ("b", "skip", "a"),
            ("a", status, "a"),
        ]
        assert results[0].found == f"requires a, {words}"

    @pytest.mark.parametrize("status", ["pass", "warn", "skip"])
    def test_what_is_not_red_stops_nothing(self, status: Status) -> None:
        results = engine.run([related("a", status), related("b", "fail", requires=("a",))], None)
        assert [(r.status, r.root_cause) for r in results] == [(status, ""), ("fail", "b")]

    def test_it_is_followed_as_far_as_it_goes(self) -> None:
        chain = [related(str(i), "pass", requires=(str(i - 1),)) for i in range(1, 20)]
        results = engine.run([*reversed(chain), related("0", "fail")], None)
        assert [r.found for r in results[:-1]] == ["requires 0, which failed"] * 19
        assert {r.root_cause for r in results} == {"0"}

    def test_it_is_run_before_and_the_others_meanwhile(self) -> None:
        events: list[str] = []
        meeting = threading.Barrier(3, timeout=5)

        def note(id: str, meet: bool) -> Callable[[Any], Iterator[Finding]]:
            def run(_: object) -> Iterator[Finding]:
                if meet:
                    meeting.wait()
                events.append(id)
                yield Finding("done")

            return run

        first, other = check(note("first", True), "first"), check(note("other", True), "other")
        after = [
            replace(check(note(id, False), id), requires=("first",)) for id in ("then", "also")
        ]
        third = check(note("third", True), "third")
        results = engine.run([*after, first, other, third], None)
        assert [r.id for r in results] == ["then", "also", "first", "other", "third"]
        assert events.index("first") < min(events.index("then"), events.index("also"))

    def test_one_that_is_out_of_time_is_red(self) -> None:
        def run(_: object) -> Iterator[Finding]:
            time.sleep(3)
            yield Finding("late")

        results = engine.run(
            [check(run, "slow", timeout=0.1), related("b", requires=("slow",))], None
        )
        assert [r.status for r in results] == ["error", "skip"]
        assert results[1].found == "requires slow, which ended with an error"

    def test_the_time_limit_counts_from_the_own_start(self) -> None:
        def run(_: object) -> Iterator[Finding]:
            time.sleep(0.5)
            yield Finding("done")

        first = check(run, "first", timeout=10)
        then = replace(
            check(lambda _: iter([Finding("done")]), "then", timeout=0.4), requires=("first",)
        )
        assert [r.status for r in engine.run([first, then], None)] == ["pass", "pass"]

    def test_a_circle_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="require each other: a, b"):
            engine.run([related("a", requires=("b",)), related("b", requires=("a",))], None)

    def test_an_unknown_one_is_an_error(self) -> None:
        with pytest.raises(KeyError):
            engine.run([related("a", requires=("no.such",))], None)

    def test_what_was_not_asked_for_is_run_and_told_only_where_it_is_red(self) -> None:
        for status, told in (("pass", []), ("warn", []), ("fail", ["base.of-it", "base.above"])):
            known = [
                related("base.of-it", status),
                related("base.above", "fail", requires=("base.of-it",)),
            ]
            results = engine.run([related("a", requires=("base.of-it",))], None, known)
            assert [r.id for r in results] == [*told[:1], "a"]
            assert good(results) == (not told)


class TestRootCause:
    def test_a_failure_alone_is_its_own(self) -> None:
        assert [r.root_cause for r in engine.run([related("a", "fail"), related("b")], None)] == [
            "a",
            "",
        ]

    def test_a_consequence_stays_red_and_names_the_root(self) -> None:
        results = engine.run(
            [
                related("c", "fail", explained_by=("a", "b")),
                related("b", "fail", explained_by=("a",)),
                related("a", "error"),
            ],
            None,
        )
        assert [(r.status, r.root_cause) for r in results] == [
            ("fail", "a"),
            ("fail", "a"),
            ("error", "a"),
        ]

    def test_the_consequence_of_what_is_good_is_a_root(self) -> None:
        assert [
            r.root_cause
            for r in engine.run([related("a"), related("b", "fail", explained_by=("a",))], None)
        ] == [
            "",
            "b",
        ]

    def test_what_stands_alone_is_a_root_although_it_is_a_consequence(self) -> None:
        alone = check(lambda _: iter([Finding("b", "fail", alone=True)]), "b")
        checks = [
            related("a", "fail"),
            replace(alone, explained_by=("a",)),
            related("c", "fail", explained_by=("b",)),
            related("d", "fail", explained_by=("a",)),
        ]
        results = engine.run(checks, None)
        assert [r.root_cause for r in results] == ["a", "b", "b", "a"]
        assert "alone" not in results[1].as_dict()

    def test_what_is_good_is_a_consequence_of_nothing(self) -> None:
        assert [
            r.root_cause
            for r in engine.run([related("a", "fail"), related("b", explained_by=("a",))], None)
        ] == [
            "a",
            "",
        ]

    def test_a_skip_names_the_root_behind_what_it_presupposes(self) -> None:
        checks = [
            related("a", "fail"),
            related("b", "fail", explained_by=("a",)),
            related("c", requires=("b",)),
        ]
        skipped = engine.run(checks, None)[2]
        assert (skipped.found, skipped.root_cause) == ("requires b, which failed", "a")

    def test_one_that_was_not_run_explains_nothing(self) -> None:
        assert (
            engine.run([related("a", "fail", explained_by=("config.valid",))], None)[0].root_cause
            == "a"
        )


class TestDeclared:
    """What the registered checks say of each other is right; a wrong id or a cycle is an error."""

    CHECKS = {c.id: c for c in catalog.all_checks()}  # noqa: RUF012

    def test_every_id_is_known(self) -> None:
        named = {(c.id, id) for c in self.CHECKS.values() for id in (*c.requires, *c.explained_by)}
        assert [(one, other) for one, other in named if other not in self.CHECKS] == []

    def test_neither_relation_leads_round_in_a_circle(self) -> None:
        graph = {c.id: {*c.requires, *c.explained_by} for c in self.CHECKS.values()}
        assert len(list(TopologicalSorter(graph).static_order())) == len(self.CHECKS)

    def test_what_is_judged_without_a_live_process_presupposes_none(self) -> None:
        """`install` leaves the live ones out where nothing runs."""
        wrong = [
            c.id
            for c in self.CHECKS.values()
            if not c.live and any(self.CHECKS[id].live for id in c.requires)
        ]
        assert wrong == []

    def test_every_check_says_what_it_proves_how_and_why(self) -> None:
        for one in self.CHECKS.values():
            text = engine.explanation(one)
            assert text.startswith(f"{one.id}: {one.title}\n"), one.id
            assert "\nHow: " in text, one.id
            assert "\nWhy: " in text, one.id

    def test_every_check_says_what_its_failure_means(self) -> None:
        assert [c.id for c in self.CHECKS.values() if not c.fault or c.fault.endswith(".")] == []


class TestSelect:
    def test_every_id_of_the_contract_is_registered(self) -> None:
        assert {c.id for c in catalog.all_checks()} >= IDS

    def test_every_check_has_words_and_a_limit(self) -> None:
        for one in catalog.all_checks():
            assert one.title
            assert one.expected
            assert 0 < one.timeout <= 300

    def test_none_named_is_all(self) -> None:
        assert catalog.select(()) == catalog.all_checks()

    def test_one(self) -> None:
        assert [c.id for c in catalog.select(["config.valid"])] == ["config.valid"]

    def test_a_family(self) -> None:
        assert [c.id for c in catalog.select(["health"])] == [
            "health.alive",
            "health.locked",
            "health.connected",
        ]

    def test_several_once_each_in_the_order_of_a_report(self) -> None:
        chosen = [
            c.id for c in catalog.select(["health.alive", "config", "health", "config.valid"])
        ]
        assert chosen == [
            c.id for c in catalog.all_checks() if c.id.startswith(("config.", "health."))
        ]

    @pytest.mark.parametrize(
        "name", ["nosuch", "health.nosuch", "heal", "health.", "", ".", "HEALTH"]
    )
    def test_an_unknown_name_is_an_error_that_names_it(self, name: str) -> None:
        with pytest.raises(KeyError) as caught:
            catalog.select(["config.valid", name])
        assert caught.value.args == (name,)
