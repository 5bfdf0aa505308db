"""Checks of what strategies achieve, from the counters of the running service."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from optictl.checks.engine import Finding, Skip, check
from optictl.facts import guard_state
from optictl.facts.deployment import Deployment
from optictl.facts.guard_state import StrategyEffect
from optictl.guard.judgement import CODES
from optictl.proof.effect import clause

if TYPE_CHECKING:
    from optictl.deployment.config_sections import Effect


@check(
    "strategies.effect",
    "The strategies have their effect",
    "few of the last requests of each strategy without effect",
    fault="A strategy often has no effect",
    live=True,
    requires=("process.guarded",),
)
def strategies_effect(deployment: Deployment) -> Iterator[Finding]:
    """Few of the last requests of each strategy were degraded: no better than one plain call.

    How: reads the effect of the last 100 requests of each strategy from /guard/state; no model is
    called, no token spent. It warns from `effect.warn_percent` on and fails from
    `effect.fail_percent` on, for strategies with at least `effect.at_least` requests.
    Why: a strategy that fell back to its first answer costs several times as much as a plain call,
    and answers 200 like any other.
    """
    state = guard_state.read(deployment.config, deployment.proxy_key)
    if state.effect is None:
        raise Skip(
            "the active release does not judge the effect of strategies, it is older than this"
            f" optictl: run {deployment.install}"
        )
    yield from judged(state.effect, deployment.config.effect)


def judged(strategies: Iterable[StrategyEffect], limits: Effect) -> Iterator[Finding]:
    """What the counters of the strategies mean. Pure.

    Raises:
        Skip: no strategy has enough requests for a verdict.
    """
    asked = [each for each in strategies if each.requests]
    if not any(each.requests >= limits.at_least for each in asked):
        so_far = ", ".join(map(_so_far, asked)) or "no requests so far"
        raise Skip(f"{so_far}; {limits.at_least} are needed")
    for each in asked:
        if each.requests >= limits.at_least:
            yield _judged(each, limits)
        else:
            yield Finding(_so_far(each))


def _so_far(each: StrategyEffect) -> str:
    requests = "1 request" if each.requests == 1 else f"{each.requests} requests"
    return f"{_model(each)}: {requests} so far"


def _model(each: StrategyEffect) -> str:
    return f"{each.strategy}-{each.base_model}"


def _judged(each: StrategyEffect, limits: Effect) -> Finding:
    percent = 100 * each.degraded / each.requests
    found = f"{_model(each)}: {each.degraded} of {each.requests} requests without effect"
    if percent < limits.warn_percent:
        return Finding(found)
    named = sorted(_degrading(each.codes).items(), key=lambda pair: (-pair[1], pair[0]))
    if named:
        found += f" ({', '.join(f'{code} {count}' for code, count in named)})"
    most = CODES.get(named[0][0]) if named else None
    return Finding(
        found,
        "fail" if percent >= limits.fail_percent else "warn",
        most.fix if most else f"optictl smoke {_model(each)} names the cause",
        clause(most.what) if most else "",
    )


def _degrading(codes: dict[str, int]) -> dict[str, int]:
    """The codes that make a result no better than a plain one; a newer guard may know more."""
    return {
        code: count
        for code, count in codes.items()
        if count and (code not in CODES or CODES[code].level == "degraded")
    }
