"""The check of the strategies' effect: from counters to a verdict, a cause and a fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optictl.checks import engine, strategies
from optictl.checks.engine import Finding, Skip
from optictl.deployment import paths
from optictl.deployment.config_sections import Effect
from optictl.facts import guard_state
from optictl.facts.deployment import Deployment
from optictl.facts.guard_state import StrategyEffect
from optictl.guard.judgement import CODES
from optictl.host.network import Response

STATE = {"uptime": 5.0, "ready": True, "in_flight": []}


def counted(
    requests: int, degraded: int = 0, strategy: str = "moa", **codes: int
) -> StrategyEffect:
    return StrategyEffect(strategy, "jerry-xl", requests, degraded, 0, codes)


def judged(*each: StrategyEffect, **limits: int) -> list[Finding]:
    return list(strategies.judged(each, Effect(**limits)))  # type: ignore[arg-type]


class TestVerdict:
    def test_a_few_without_effect_are_no_fault(self) -> None:
        (finding,) = judged(counted(40, 3, critique_truncated=3))
        assert finding == Finding("moa-jerry-xl: 3 of 40 requests without effect")

    @pytest.mark.parametrize(
        ("degraded", "status"),
        [(0, "pass"), (9, "pass"), (10, "warn"), (49, "warn"), (50, "fail"), (100, "fail")],
    )
    def test_the_limits_are_percentages(self, degraded: int, status: str) -> None:
        assert judged(counted(100, degraded))[0].status == status

    def test_both_limits_are_configured(self) -> None:
        limits = {"warn_percent": 2, "fail_percent": 4}
        statuses = [judged(counted(100, n), **limits)[0].status for n in (1, 2, 3, 4)]
        assert statuses == ["pass", "warn", "warn", "fail"]

    def test_it_names_the_codes_and_explains_the_most_frequent(self) -> None:
        codes = {"candidates_identical": 4, "critique_truncated": 10, "candidates_repeated": 19}
        (finding,) = judged(counted(20, 12, **codes))
        assert finding.found == (
            "moa-jerry-xl: 12 of 20 requests without effect"
            " (critique_truncated 10, candidates_identical 4)"
        )
        assert finding.cause.startswith("the critique reached its token limit, and ")
        assert finding.remedy == CODES["critique_truncated"].fix

    @pytest.mark.parametrize("codes", [{}, {"from_the_future": 20}])
    def test_an_unknown_cause_is_found_by_smoke(self, codes: dict[str, int]) -> None:
        (finding,) = judged(counted(20, 20, **codes))
        assert finding.status == "fail"
        assert finding.remedy == "optictl smoke moa-jerry-xl names the cause"
        assert all(code in finding.found for code in codes)

    def test_each_strategy_is_judged_by_itself(self) -> None:
        findings = judged(counted(20), counted(20, 20, "bon"), counted(3, 3, "re2"))
        assert [(f.status, f.found) for f in findings] == [
            ("pass", "moa-jerry-xl: 0 of 20 requests without effect"),
            ("fail", "bon-jerry-xl: 20 of 20 requests without effect"),
            ("pass", "re2-jerry-xl: 3 requests so far"),
        ]


class TestTooFew:
    def test_they_are_counted(self) -> None:
        with pytest.raises(Skip, match=r"^moa-jerry-xl: 5 requests so far; 20 are needed$"):
            judged(counted(5, 5))

    def test_of_each_strategy(self) -> None:
        with pytest.raises(Skip) as skipped:
            judged(counted(5), counted(19, 0, "bon"), counted(0, 0, "re2"), at_least=30)
        assert str(skipped.value) == (
            "moa-jerry-xl: 5 requests so far, bon-jerry-xl: 19 requests so far; 30 are needed"
        )

    def test_none_at_all(self) -> None:
        with pytest.raises(Skip, match=r"^no requests so far; 20 are needed$"):
            judged()

    def test_the_smallest_number_is_enough(self) -> None:
        assert judged(counted(1, 1), at_least=1)[0].status == "fail"


_COUNTED = st.builds(
    StrategyEffect,
    strategy=st.sampled_from(["moa", "bon"]),
    base_model=st.just("jerry-xl"),
    requests=st.integers(0, 300),
    degraded=st.integers(0, 300),
    weak=st.integers(0, 300),
    codes=st.dictionaries(st.sampled_from([*CODES, "later"]), st.integers(0, 300)),
)


@given(st.lists(_COUNTED, max_size=4), st.integers(1, 100), st.integers(1, 100))
def test_a_bad_finding_has_a_fix_and_enough_requests(
    each: list[StrategyEffect], at_least: int, percent: int
) -> None:
    limits = Effect(at_least=at_least, warn_percent=percent, fail_percent=100)
    enough = [one for one in each if one.requests >= at_least]
    try:
        findings = list(strategies.judged(each, limits))
    except Skip:
        assert enough == []
        return
    bad = [finding for finding in findings if finding.status != "pass"]
    assert len(bad) == sum(100 * one.degraded >= percent * one.requests for one in enough)
    assert all(finding.remedy for finding in bad)


class _Deployment(Deployment):
    """A deployment whose guard answers with `state`."""

    proxy_key = "a key"  # type: ignore[assignment]


def checked(root: Path, monkeypatch: pytest.MonkeyPatch, state: Any) -> tuple[str, str]:
    """Status and words of the check, where the guard reports this state."""
    places = paths.system(root)
    places.etc.mkdir(parents=True, exist_ok=True)
    places.config.write_text("effect: {at_least: 2}\n")
    answer = Response(200, json.dumps(state), {"x-optillm-guard": "1"})
    monkeypatch.setattr(guard_state, "ask", lambda config, key, path: answer)
    result = engine._run(strategies.strategies_effect, _Deployment(places))
    return result.status, result.found


def test_it_reads_the_state_of_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"strategy": "moa", "base_model": "jerry-xl", "weak": 0, "later": "ignored"}
    counts = {"requests": 2, "degraded": 2, "codes": {"critique_empty": 2}}
    state = {**STATE, "effect": [{**entry, **counts}]}
    assert checked(tmp_path, monkeypatch, state) == (
        "fail",
        "moa-jerry-xl: 2 of 2 requests without effect (critique_empty 2)",
    )
    assert checked(tmp_path, monkeypatch, {**STATE, "effect": []}) == (
        "skip",
        "no requests so far; 2 are needed",
    )


def test_an_older_guard_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, found = checked(tmp_path, monkeypatch, STATE)
    assert status == "skip"
    assert "older than this optictl: run optictl install" in found
