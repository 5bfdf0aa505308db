"""The registry of checks and how they are run. Knows no product."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from optictl.results import SEVERITY, Result, Status


@dataclass(frozen=True)
class Finding:
    """One thing that a check found. A check without bad findings has passed."""

    found: str
    status: Status = "pass"
    remedy: str = ""
    cause: str = ""


class Skip(Exception):
    """A check's precondition is missing; `str()` says which. Neither a pass nor a failure."""


@dataclass(frozen=True)
class Check:
    """`run(site)` yields findings. `live` checks need a running service. `timeout` in seconds."""

    id: str
    title: str
    expected: str
    live: bool
    timeout: float
    run: Callable[[Any], Iterator[Finding]]

    @property
    def family(self) -> str:
        """`health` of `health.alive`."""
        return self.id.partition(".")[0]


_CHECKS: dict[str, Check] = {}


def check(
    id: str, title: str, expected: str, *, live: bool = False, timeout: float = 15
) -> Callable[[Callable[[Any], Iterator[Finding]]], Callable[[Any], Iterator[Finding]]]:
    """Register a check under an id that scripts may rely on."""

    def register(run: Callable[[Any], Iterator[Finding]]) -> Callable[[Any], Iterator[Finding]]:
        _CHECKS[id] = Check(id, title, expected, live, timeout, run)
        return run

    return register


def all_checks() -> list[Check]:
    """Every check, in the order in which a report lists them."""
    from optictl.checks import environment, health, installed, process, supervised  # noqa: F401  (they register themselves)

    return list(_CHECKS.values())


def select(only: Sequence[str]) -> list[Check]:
    """The checks with these ids or in these families (`health`, `health.alive`); all for none.

    Raises:
        KeyError: with a name that is neither.
    """
    checks = all_checks()
    for name in only:
        if not any(c.id == name or c.id.startswith(f"{name}.") for c in checks):
            raise KeyError(name)
    return [c for c in checks if not only or any(c.id == name or c.id.startswith(f"{name}.") for name in only)]


def _result(check: Check, findings: list[Finding]) -> Result:
    status: Status = max((f.status for f in findings), key=SEVERITY.index, default="pass")
    # what is good is not worth a word next to what is not
    told = [f for f in findings if f.status == status]
    joined = {
        name: "; ".join(dict.fromkeys(filter(None, (getattr(f, name) for f in told)))) for name in ("found", "remedy", "cause")
    }
    return Result(
        check.id, check.title, status, check.expected, joined["found"] or "as expected", joined["cause"], joined["remedy"]
    )


def _run(check: Check, site: Any) -> Result:
    findings: list[Finding] = []
    try:
        # one by one: what was found bad before a crash or a missing precondition stays found
        for finding in check.run(site):
            findings.append(finding)
    except Skip as reason:
        findings.append(Finding(str(reason), "skip"))
    except PermissionError as error:
        findings.append(Finding(f"no permission to read {error.filename}", "skip", "sudo optictl check"))
    except (Exception, SystemExit) as error:  # noqa: BLE001  (a check that crashes must be seen, and must not stop the others)
        findings.append(Finding("the check itself failed", "error", cause=f"{type(error).__name__}: {error}"))
    return _result(check, findings)


def run(checks: Sequence[Check], site: Any) -> list[Result]:
    """Run checks side by side; each has its own time limit and ends as exactly one result."""
    started = time.monotonic()
    running: list[tuple[Check, queue.SimpleQueue[Result]]] = []
    for check in checks:
        answer: queue.SimpleQueue[Result] = queue.SimpleQueue()
        # daemons: optictl ends although a check hangs
        threading.Thread(target=_into, args=(answer, check, site), name=f"check {check.id}", daemon=True).start()
        running.append((check, answer))
    results = []
    for check, answer in running:
        try:
            results.append(answer.get(timeout=max(0.0, started + check.timeout - time.monotonic())))
        except queue.Empty:
            found = f"no answer after {check.timeout:g} s"
            results.append(Result(check.id, check.title, "error", check.expected, found, "the check timed out"))
    return results


def _into(answer: queue.SimpleQueue[Result], check: Check, site: Any) -> None:
    answer.put(_run(check, site))
