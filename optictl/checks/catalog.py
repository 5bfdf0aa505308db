"""The catalog of checks: every check of every family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optictl.checks import (
    confinement,
    engine,
    environment,
    health,
    installed,
    litellm,
    machine,
    process,
    routing,
    service,
    strategies,
    timer,
    units,
)
from optictl.checks.engine import Check
from optictl.results import Result

#: In the order in which a report lists them.
FAMILIES = (
    environment,
    health,
    installed,
    machine,
    timer,
    process,
    strategies,
    litellm,
    routing,
    units,
    service,
    confinement,
)


def all_checks() -> list[Check]:
    """Every check, in the order in which a report lists them."""
    return [
        member
        for family in FAMILIES
        for member in vars(family).values()
        if isinstance(member, Check)
    ]


def select(only: Sequence[str]) -> list[Check]:
    """The checks with these ids or families (`health.alive`, `health`); by default all.

    Raises:
        KeyError: no check has this id or family.
    """
    checks = all_checks()
    for name in only:
        if not any(c.id == name or c.id.startswith(f"{name}.") for c in checks):
            raise KeyError(name)
    return [
        c
        for c in checks
        if not only or any(c.id == name or c.id.startswith(f"{name}.") for name in only)
    ]


def run(checks: Sequence[Check], deployment: Any) -> list[Result]:
    """The results of these checks, and of the checks that they require if those failed."""
    return engine.run(checks, deployment, all_checks())
