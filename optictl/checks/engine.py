"""The check engine: runs checks and finds root causes. It knows nothing about OptiLLM.

Two relations between checks turn many symptoms of one fault into one reported fault:

- `requires`: the other check runs first. If it fails, this check is skipped, with that reason.
- `explained_by`: both checks run. If both fail, the other check is the root cause.

Both relations hold check ids, contain no cycle, and are followed transitively.
"""

from __future__ import annotations

import inspect
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optictl.errors import MissingFact, NotApplicable
from optictl.results import SEVERITY, Result, Status


@dataclass(frozen=True)
class Finding:
    """One thing that a check found. A check passes if none of its findings is bad.

    `alone`: no other check explains this finding, even if the check has an `explained_by`.
    `applies`: False for a skip of a check that has nothing to ask here. `fault`: what this failure
    means, if it is not what the check's failures mean.
    """

    found: str
    status: Status = "pass"
    remedy: str = ""
    cause: str = ""
    alone: bool = False
    applies: bool = True
    fault: str = ""


class Skip(Exception):
    """The check cannot be made here; `str()` says why. Neither a pass nor a failure."""


@dataclass(frozen=True)
class Check:
    """One check. `run(subject)` yields findings; `timeout` is in seconds.

    `live`: the check needs a running service. `fault`: what a failure means, a sentence without
    its full stop; reports append the finding. `felt`: clients notice the fault, so a headline
    names it even if its root cause is another check.
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
    """A decorator that turns a function into a check. Scripts may rely on the id."""

    def decorate(run: CheckFunction) -> Check:
        return Check(id, title, expected, live, timeout, run, fault, felt, requires, explained_by)

    return decorate


def explanation(check: Check) -> str:
    """What a check proves, how, and why: its fields and the docstring of its function."""
    lines = [f"{check.id}: {check.title}", f"expected: {check.expected}"]
    for label, ids in (("requires", check.requires), ("explained by", check.explained_by)):
        lines += [f"{label}: {', '.join(ids)}"] if ids else []
    return "\n".join([*lines, "", inspect.getdoc(check.run) or "", ""])


def _result(check: Check, findings: list[Finding]) -> Result:
    status: Status = max((f.status for f in findings), key=SEVERITY.index, default="pass")
    # a failed check does not report what passed
    reported = [f for f in findings if f.status == status]
    joined = {
        name: "; ".join(dict.fromkeys(filter(None, (getattr(f, name) for f in reported))))
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
        fault=next((f.fault or check.fault for f in reported), check.fault),
        felt=check.felt,
        alone=any(f.alone for f in reported),
        applies=status != "skip" or any(f.applies for f in reported),
    )


def _run(check: Check, subject: Any) -> Result:
    findings: list[Finding] = []
    try:
        # one by one: findings before a crash or a missing fact still count
        for finding in check.run(subject):
            findings.append(finding)
    except Skip as reason:
        findings.append(Finding(str(reason), "skip"))
    except NotApplicable as reason:
        findings.append(Finding(reason.what, "skip", applies=False))
    except MissingFact as missing:
        way = f": run {missing.remedy}" if missing.remedy else ""
        findings.append(Finding(f"{missing.what}{way}", "skip"))
    except PermissionError as error:
        findings.append(
            Finding(f"no permission to read {error.filename}", "skip", "sudo optictl check")
        )
    # a crash is reported and does not stop the other checks
    except (Exception, SystemExit) as error:  # noqa: BLE001
        findings.append(
            Finding(
                "the check itself crashed",
                "error",
                _run_again(check),
                f"{type(error).__name__}: {error}",
                fault=_no_answer(check),
            )
        )
    return _result(check, findings)


def _no_answer(check: Check) -> str:
    """What it means that a check crashed or timed out: nothing was seen, good or bad."""
    return f"{check.id} could not be made"


def _run_again(check: Check) -> str:
    return f"run it again with --only {check.id}; if it happens again, please report it"


def run(checks: Sequence[Check], subject: Any, others: Sequence[Check] = ()) -> list[Result]:
    """Run checks in parallel, each as soon as its required checks have ended. One result per check.

    Required checks that are only among `others` run too. Their results come first, and only if
    they failed.
    """
    selected = {c.id: c for c in checks}
    every = {**_required(checks, others), **selected}
    outcomes = _run_in_parallel(list(every.values()), subject)
    results = [_with_root_cause(outcomes[id], every, outcomes) for id in every]
    return [r for r in results if r.id in selected or r.failed]


def _required(checks: Sequence[Check], others: Sequence[Check]) -> dict[str, Check]:
    """All checks that these checks require, directly or not, without these checks themselves."""
    known = {c.id: c for c in (*others, *checks)}
    required: dict[str, Check] = {}
    left = [id for c in checks for id in c.requires]
    while left:
        if (id := left.pop(0)) not in required:
            required[id] = known[id]
            left += known[id].requires
    return {id: c for id, c in required.items() if c not in checks}


def _run_in_parallel(checks: Sequence[Check], subject: Any) -> dict[str, Result]:
    outcomes: dict[str, Result] = {}
    waiting = list(checks)
    running: dict[str, tuple[Check, float]] = {}
    ended: queue.SimpleQueue[Result] = queue.SimpleQueue()
    while waiting or running:
        ready = [c for c in waiting if all(id in outcomes for id in c.requires)]
        waiting = [c for c in waiting if c not in ready]
        for check in ready:
            if (skipped := _skipped(check, outcomes)) is not None:
                outcomes[check.id] = skipped
                continue
            running[check.id] = check, time.monotonic() + check.timeout
            # daemon threads: a check that hangs does not keep optictl alive
            threading.Thread(
                target=_run_into,
                args=(ended, check, subject),
                name=f"check {check.id}",
                daemon=True,
            ).start()
        if ready and any(c.id in outcomes for c in ready):
            continue  # a skip may unblock other checks
        if not running:
            raise ValueError(f"these checks require each other: {', '.join(c.id for c in waiting)}")
        _wait(ended, running, outcomes)
    return outcomes


def _wait(
    ended: queue.SimpleQueue[Result],
    running: dict[str, tuple[Check, float]],
    outcomes: dict[str, Result],
) -> None:
    """Wait until one of the running checks ends or times out, and record its outcome."""
    check, until = min(running.values(), key=lambda item: item[1])
    try:
        result = ended.get(timeout=max(0.0, until - time.monotonic()))
    except queue.Empty:
        late = Finding(
            f"no result after {check.timeout:g} s",
            "error",
            _run_again(check),
            "the check timed out",
            fault=_no_answer(check),
        )
        result = _result(check, [late])
    if running.pop(result.id, None):  # ignore a check that ends after its timeout
        outcomes[result.id] = result


def _run_into(ended: queue.SimpleQueue[Result], check: Check, subject: Any) -> None:
    ended.put(_run(check, subject))


def _skipped(check: Check, outcomes: dict[str, Result]) -> Result | None:
    """The result of a check that is not run because a check that it requires failed; else None."""
    for id in check.requires:
        required = outcomes[id]
        if cause := id if required.failed else required.root_cause:
            what = "failed" if outcomes[cause].status == "fail" else "ended with an error"
            skip = Finding(f"requires {cause}, which {what}", "skip")
            return replace(_result(check, [skip]), root_cause=cause)
    return None


def _with_root_cause(
    result: Result, checks: dict[str, Check], outcomes: dict[str, Result]
) -> Result:
    """The result with the id of the failure that explains it."""
    if not (id := result.id if result.failed else result.root_cause):
        return result
    while not outcomes[id].alone and (
        other := next(
            (o for o in checks[id].explained_by if o in outcomes and outcomes[o].failed), None
        )
    ):
        id = other
    return replace(result, root_cause=id)
