"""How checks are selected and run: each ends as exactly one result, whatever it does."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from optictl.checks import registry
from optictl.checks.registry import Check, Finding, Skip
from optictl.results import Result, Status, good

#: Issue 2, point 7: scripts rely on these.
IDS = {
    "config.valid", "env.forbidden", "env.upstream-key", "bind.loopback", "proxy-config.litellm-only", "proxy-config.in-force",
    "key.strength", "key.not-in-argv", "files.ownership", "release.pinned", "release.starts", "process.non-root",
    "process.guarded", "workdir.empty", "health.alive", "health.locked", "health.connected", "upstream.base-model",
}  # fmt: skip


def check(run: Callable[[Any], Iterator[Finding]], name: str = "family.name", timeout: float = 10) -> Check:
    return Check(name, "A title", "something", False, timeout, run)


def outcome(run: Callable[[Any], Iterator[Finding]], timeout: float = 10) -> Result:
    """The one result of a check."""
    (result,) = registry.run([check(run, timeout=timeout)], site=None)
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
        result = finds(*(Finding(f"a {status}", status, f"mend {status}", f"why {status}") for status in statuses))
        assert result.status == worst
        assert (result.found, result.remedy, result.cause) == (f"a {worst}", f"mend {worst}", f"why {worst}")

    def test_findings_of_the_same_kind_are_all_told_and_a_remedy_once(self) -> None:
        result = finds(Finding("one", "fail", "mend it"), Finding("two", "fail", "mend it"), Finding("fine"))
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
        "failure", [ValueError("broken"), KeyError("key"), RecursionError(), SystemExit(0), OSError(5, "io")]
    )
    def test_a_crash_is_an_error_and_never_silence(self, failure: BaseException) -> None:
        def run(_: object) -> Iterator[Finding]:
            yield Finding("good so far")
            raise failure

        result = outcome(run, timeout=5)
        assert result.status == "error"
        assert type(failure).__name__ in result.cause
        assert not good([result])

    def test_a_check_that_is_no_generator_is_judged_the_same(self) -> None:
        def run(_: object) -> Iterator[Finding]:
            raise ValueError("at once")

        assert outcome(run).status == "error"

    @pytest.mark.parametrize("end", [Skip("no more to see"), PermissionError(13, "no", "/proc/1/environ")])
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
        assert (result.status, result.found) == ("error", "no answer after 0.1 s")

    def test_optictl_ends_although_a_check_hangs(self) -> None:
        program = (
            "import time\nfrom optictl.checks import registry\n"
            "hang = registry.Check('a.b', 't', 'e', False, 0.1, lambda site: iter([time.sleep(60)]))\n"
            "print(registry.run([hang], None)[0].status)\n"
        )
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=15)
        assert (result.stdout, result.returncode) == ("error\n", 0)

    def test_one_crash_does_not_stop_the_others_and_the_order_stays(self) -> None:
        def crash(_: object) -> Iterator[Finding]:
            raise ValueError
            yield

        checks = [check(crash, "a"), check(lambda _: iter([Finding("fine")]), "b"), check(crash, "c")]
        assert [(r.id, r.status) for r in registry.run(checks, None)] == [("a", "error"), ("b", "pass"), ("c", "error")]

    def test_they_run_side_by_side(self) -> None:
        meeting = threading.Barrier(4, timeout=5)

        def run(_: object) -> Iterator[Finding]:
            meeting.wait()
            yield Finding("met")

        results = registry.run([check(run, str(i)) for i in range(4)], None)
        assert {r.found for r in results} == {"met"}

    def test_no_checks_no_results(self) -> None:
        assert registry.run([], None) == []

    def test_each_is_given_the_site(self) -> None:
        assert registry.run([check(lambda site: iter([Finding(site)]))], "the site")[0].found == "the site"


class TestSelect:
    def test_every_id_of_the_contract_is_registered(self) -> None:
        assert {c.id for c in registry.all_checks()} >= IDS

    def test_every_check_has_words_and_a_limit(self) -> None:
        for one in registry.all_checks():
            assert one.title
            assert one.expected
            assert 0 < one.timeout <= 300

    def test_none_named_is_all(self) -> None:
        assert registry.select(()) == registry.all_checks()

    def test_one(self) -> None:
        assert [c.id for c in registry.select(["config.valid"])] == ["config.valid"]

    def test_a_family(self) -> None:
        assert [c.id for c in registry.select(["health"])] == ["health.alive", "health.locked", "health.connected"]

    def test_several_once_each_in_the_order_of_a_report(self) -> None:
        chosen = [c.id for c in registry.select(["health.alive", "config", "health", "config.valid"])]
        assert chosen == [c.id for c in registry.all_checks() if c.id.startswith(("config.", "health."))]

    @pytest.mark.parametrize("name", ["nosuch", "health.nosuch", "heal", "health.", "", ".", "HEALTH"])
    def test_an_unknown_name_is_an_error_that_names_it(self, name: str) -> None:
        with pytest.raises(KeyError) as caught:
            registry.select(["config.valid", name])
        assert caught.value.args == (name,)
