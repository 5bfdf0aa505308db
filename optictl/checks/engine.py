"""The registry of checks and how they are run. Knows no product.

Two relations make one fault read as one fault. What a check `requires` is run before it; where that is red,
the check is not run and is a skip with that reason. What a check is a `explained_by` is run beside it; where both
are red, the other one is the root cause. Both name ids, lead round in no circle, and are followed as far as they go.
"""

from __future__ import annotations

import inspect
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optictl.errors import MissingFact
from optictl.results import SEVERITY, Result, Status


@dataclass(frozen=True)
class Finding:
    """One thing that a check found. A check without bad findings has passed.

    `alone`: no other check explains it, also where this one is a consequence of others.
    """

    found: str
    status: Status = "pass"
    remedy: str = ""
    cause: str = ""
    alone: bool = False


class Skip(Exception):
    """A check's precondition is missing; `str()` says which. Neither a pass nor a failure."""


@dataclass(frozen=True)
class Check:
    """`run(subject)` yields findings. `live` checks need a running service. `timeout` in seconds.

    `fault` says what a failure means: a sentence without its full stop, which what was found is added to. `felt`: clients
    notice the fault, so that a headline names it although its root is another one.
    """

    id: str
    title: str
    expected: str
    live: bool
    timeout: float
    run: Callable[[Any], Iterator[Finding]]
    fault: str = ""
    felt: bool = False
    requires: tuple[str, ...] = ()
    explained_by: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """`health` of `health.alive`."""
        return self.id.partition(".")[0]


CheckFunction = Callable[[Any], Iterator[Finding]]


def check(
    id: str,
    title: str,
    expected: str,
    *,
    fault: str = "",
    felt: bool = False,
    live: bool = False,
    timeout: float = 15,
    requires: tuple[str, ...] = (),
    explained_by: tuple[str, ...] = (),
) -> Callable[[CheckFunction], Check]:
    """Turn a function into the check with an id that scripts may rely on."""

    def made(run: CheckFunction) -> Check:
        return Check(id, title, expected, live, timeout, run, fault, felt, requires, explained_by)

    return made


def explanation(check: Check) -> str:
    """What a check proves, how, and why it matters: its own words and those of its function."""
    lines = [f"{check.id}: {check.title}", f"expected: {check.expected}"]
    for words, ids in (("requires", check.requires), ("a consequence of", check.explained_by)):
        lines += [f"{words}: {', '.join(ids)}"] if ids else []
    return "\n".join([*lines, "", inspect.getdoc(check.run) or "", ""])


def _result(check: Check, findings: list[Finding]) -> Result:
    status: Status = max((f.status for f in findings), key=SEVERITY.index, default="pass")
    # what is good is not worth a word next to what is not
    told = [f for f in findings if f.status == status]
    joined = {
        name: "; ".join(dict.fromkeys(filter(None, (getattr(f, name) for f in told))))
        for name in ("found", "remedy", "cause")
    }
    return Result(
        id=check.id,
        title=check.title,
        status=status,
        expected=check.expected,
        found=joined["found"] or "as expected",
        cause=joined["cause"],
        remedy=joined["remedy"],
        fault=check.fault,
        felt=check.felt,
        alone=any(f.alone for f in told),
    )


def _run(check: Check, subject: Any) -> Result:
    findings: list[Finding] = []
    try:
        # one by one: what was found bad before a crash or a missing precondition stays found
        for finding in check.run(subject):
            findings.append(finding)
    except (Skip, MissingFact) as reason:
        findings.append(Finding(str(reason), "skip"))
    except PermissionError as error:
        findings.append(
            Finding(f"no permission to read {error.filename}", "skip", "sudo optictl check")
        )
    except (Exception, SystemExit) as error:  # noqa: BLE001  (a check that crashes must be seen, and must not stop the others)
        findings.append(
            Finding(
                "the check itself failed",
                "error",
                _again(check),
                f"{type(error).__name__}: {error}",
            )
        )
    return _result(check, findings)


def _again(check: Check) -> str:
    return f"run it again with --only {check.id}; if it ends the same way, report it as a defect of optictl"


def run(checks: Sequence[Check], subject: Any, others: Sequence[Check] = ()) -> list[Result]:
    """Run checks, each as soon as what it requires has been judged; each ends as exactly one result.

    What they presuppose, also among `others`, is run too. It stands before the others in the results, and only where it is red.
    """
    asked = {c.id: c for c in checks}
    every = {**_required(checks, others), **asked}
    outcomes = _side_by_side(list(every.values()), subject)
    results = [_with_root_cause(outcomes[id], every, outcomes) for id in every]
    return [r for r in results if r.id in asked or r.red]


def _required(checks: Sequence[Check], others: Sequence[Check]) -> dict[str, Check]:
    """Everything that these checks presuppose, themselves left out; `others` are known besides."""
    known = {c.id: c for c in (*others, *checks)}
    found: dict[str, Check] = {}
    left = [id for c in checks for id in c.requires]
    while left:
        if (id := left.pop(0)) not in found:
            found[id] = known[id]
            left += known[id].requires
    return {id: c for id, c in found.items() if c not in checks}


def _side_by_side(checks: Sequence[Check], subject: Any) -> dict[str, Result]:
    outcomes: dict[str, Result] = {}
    waiting = list(checks)
    running: dict[str, tuple[Check, float]] = {}
    answers: queue.SimpleQueue[Result] = queue.SimpleQueue()
    while waiting or running:
        ready = [c for c in waiting if all(id in outcomes for id in c.requires)]
        waiting = [c for c in waiting if c not in ready]
        for check in ready:
            if (skipped := _skipped(check, outcomes)) is not None:
                outcomes[check.id] = skipped
                continue
            running[check.id] = check, time.monotonic() + check.timeout
            # daemons: optictl ends although a check hangs
            threading.Thread(
                target=_into,
                args=(answers, check, subject),
                name=f"check {check.id}",
                daemon=True,
            ).start()
        if ready and any(c.id in outcomes for c in ready):
            continue  # what was skipped may be all that others waited for
        if not running:
            raise ValueError(
                f"these checks presuppose each other: {', '.join(c.id for c in waiting)}"
            )
        _wait(answers, running, outcomes)
    return outcomes


def _wait(
    answers: queue.SimpleQueue[Result],
    running: dict[str, tuple[Check, float]],
    outcomes: dict[str, Result],
) -> None:
    """Until one of the running checks ends or is out of time."""
    check, until = min(running.values(), key=lambda item: item[1])
    try:
        result = answers.get(timeout=max(0.0, until - time.monotonic()))
    except queue.Empty:
        late = Finding(
            f"no answer after {check.timeout:g} s", "error", _again(check), "the check timed out"
        )
        result = _result(check, [late])
    if running.pop(result.id, None):  # not one that answers after its time
        outcomes[result.id] = result


def _into(answers: queue.SimpleQueue[Result], check: Check, subject: Any) -> None:
    answers.put(_run(check, subject))


def _skipped(check: Check, outcomes: dict[str, Result]) -> Result | None:
    """The result of a check that need not be run, because something it requires is red."""
    for id in check.requires:
        known = outcomes[id]
        if red := id if known.red else known.root_cause:
            what = "failed" if outcomes[red].status == "fail" else "could not be judged"
            return replace(
                _result(check, [Finding(f"requires {red}, which {what}", "skip")]), root_cause=red
            )
    return None


def _with_root_cause(
    result: Result, checks: dict[str, Check], outcomes: dict[str, Result]
) -> Result:
    """The result, told which failure is behind it."""
    if not (id := result.id if result.red else result.root_cause):
        return result
    while not outcomes[id].alone and (
        other := next(
            (o for o in checks[id].explained_by if o in outcomes and outcomes[o].red), None
        )
    ):
        id = other
    return replace(result, root_cause=id)
