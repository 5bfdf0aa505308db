"""What Ansible's events tell about each host. Pure: events in, facts out."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optictl.results import Result, Status

_OURS = "optictl.optillm."
#: What a host is at, by what our tasks are called or by their module; the tasks of others are over at once.
_PHASES = {
    "optillm_host_info": "look at the host",
    "optillm_wheels": "send the wheels",
    "optillm_program": "install optictl",
    "optillm_program/current": "put optictl in force",
    "optillm_deployment/built": "build and prove",
    "optillm_deployment/present": "switch, check and smoke",
    "optillm_rollback": "go back",
    "optillm_info": "look",
    "optillm_check": "check",
    "optillm_smoke": "smoke",
}
_VIA_SSH = "Failed to connect to the host via ssh: "
#: Two uses of one module are told apart by the task's name.
_USES = {
    "Build and prove": "built",
    "Switch, check and smoke": "present",
    "Put optictl in force": "current",
}
#: Whose answer says that a roll-out is done with a host.
PRESENT = "optillm_deployment/present"
#: So few results of a host are told by name.
_FEW = 5
#: Exit codes of optictl.
INVALID, ROLLED_BACK = 78, 4


@dataclass
class Host:
    """One host in one play.

    `phase`: what it was last at; `answers`: module -> the last result of it; `facts`: what set_fact set; `failed` the result
    that ended the play for it; `unreachable` why it could not be reached.
    """

    name: str
    phase: str = ""
    changed: bool = False
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, Any] | None = None
    unreachable: str = ""

    @property
    def bad(self) -> bool:
        return self.failed is not None or bool(self.unreachable)


class PlaybookEvents:
    """One playbook, as its events come. `foreseen`: nothing of it is done, it is in check mode."""

    def __init__(self, *, foreseen: bool = False) -> None:
        self.hosts: dict[str, Host] = {}
        self._foreseen = foreseen

    def see(self, event: Mapping[str, Any]) -> str:
        """Take one event of ansible-runner in; a line for people, or ""."""
        kind, data = event.get("event", ""), event.get("event_data") or {}
        name = data.get("host")
        if not name:
            return ""
        host = self.hosts.setdefault(name, Host(name))
        step = _step(data)
        phase = _PHASES.get(step, "")
        if self._foreseen and phase and step != "optillm_host_info":
            phase = "plan"
        if kind == "runner_on_start":
            if not phase or (self._foreseen and host.phase == phase):
                return ""
            host.phase = phase
            return f"{name}  {phase}"
        res = data.get("res") or {}
        if kind == "runner_on_ok":
            host.facts.update(res.get("ansible_facts") or {})
            if not step:
                return ""
            host.changed = host.changed or bool(res.get("changed"))
            host.answers[step] = res
            return (
                f"{name}  {phase}: done{_took(data)}"
                if res.get("changed") and not self._foreseen
                else ""
            )
        if kind == "runner_on_failed" and not data.get("ignore_errors"):
            host.failed = {"msg": "it failed", **res}
            return f"{name}  FAILED ({host.phase}): {_line(host.failed['msg'])}"
        if kind == "runner_on_unreachable":
            host.unreachable = _line(
                str(res.get("msg", "unreachable"))
                .removeprefix("Task failed: ")
                .removeprefix(_VIA_SSH)
            )
            return f"{name}  UNREACHABLE: {host.unreachable}"
        return ""


def _step(data: Mapping[str, Any]) -> str:
    """Our module, and which use of it where it has several; "" for a task of another's."""
    action = str(data.get("task_action") or data.get("resolved_action") or "")
    if not action.startswith(_OURS):
        return ""
    use = _USES.get(str(data.get("task", "")).rpartition(" : ")[2], "")
    return action.removeprefix(_OURS) + (f"/{use}" if use else "")


def _took(data: Mapping[str, Any]) -> str:
    seconds = round(float(data.get("duration") or 0))
    return f" ({seconds} s)" if seconds else ""


def complaints(output: str) -> list[str]:
    """What Ansible found wrong with an inventory, of all that it printed."""
    lines = [
        line.partition("]: ")[2]
        for line in output.splitlines()
        if line.startswith(("[WARNING]: ", "[ERROR]: "))
    ]
    return [line for line in lines if "implicit localhost" not in line][:4]


def _line(text: object) -> str:
    return " ".join(str(text).split())


# -- what became of each host


def outcome(
    names: Iterable[str], roll: Mapping[str, Host], interrupted: bool, module: str
) -> list[Result]:
    """What a roll-out did to each host.

    `names`: every host that it was for, `roll`: those that it reached. `module`: whose result says that a host is done.
    """
    return [_became(name, roll.get(name), interrupted, module) for name in names]


def _became(name: str, host: Host | None, interrupted: bool, module: str) -> Result:
    def result(status: Status, state: str, found: str, remedy: str = "", **data: Any) -> Result:
        phase = host.phase if host else ""
        facts = {"state": state, "changed": bool(host and host.changed), "phase": phase, **data}
        expected = "done and green" if module in (PRESENT, "optillm_rollback") else "an answer"
        return Result(name, "a host", status, expected, found, remedy=remedy, data=facts)

    done = host.answers.get(module) if host else None
    if host is None or not (host.phase or host.bad):
        return result("skip", "untouched", "untouched: it ended before its turn")
    if host.unreachable:
        remedy = f"look whether `ssh {name}` works, or go on without it: --limit 'all:!{name}'"
        return result(
            "fail",
            "unreachable",
            f"unreachable ({host.phase or 'at the start'}): {host.unreachable}",
            remedy,
        )
    if host.failed is not None:
        why, remedy = _line(host.failed["msg"]), str(host.failed.get("remedy") or "")
        told = {
            name: host.failed[name]
            for name in ("before", "release", "rc", "results")
            if host.failed.get(name)
        }
        if host.failed.get("rolled_back"):
            now = host.failed.get("release") or "nothing"
            return result("fail", "went back", f"went back to {now}: {why}", remedy, **told)
        return result("fail", "failed", f"failed ({host.phase}): {why}", remedy, **told)
    if done is None:
        if interrupted:
            words = f"interrupted ({host.phase}): what optictl began there, it ends there, or it goes back"
            return result("fail", "interrupted", words, f"optictl fleet status --limit {name}")
        return result(
            "skip", "untouched", f"not switched: it ended before ({host.phase} was the last)"
        )
    release, before = done.get("release", ""), done.get("before", "")
    words = f"{before or 'nothing'} -> {release}"
    if before == release:
        words = (
            f"{release}, changed: {', '.join(_changes(host))}"
            if host.changed
            else f"{release}, unchanged"
        )
    if module == PRESENT and "optillm_program/current" not in host.answers:
        return result(
            "skip", "switched", f"{words}; it ended before its new optictl was put in force"
        )
    return result("pass", "done", words, release=release, before=before)


def _changes(host: Host) -> list[str]:
    """What was done to a host, or would be."""
    # the modules beside the deployment have no words of their own
    steps = {step: answer for step, answer in host.answers.items() if answer.get("changed")}
    found = ["send wheels"] * ("optillm_wheels" in steps) + ["install optictl"] * any(
        "program" in step for step in steps
    )
    return found + list((host.answers.get(PRESENT) or {}).get("actions", []))


def planned(names: Iterable[str], hosts: Mapping[str, Host]) -> list[Result]:
    """What a roll-out would do to each host."""
    found = []
    for name in names:
        host = hosts.get(name)
        answer = host.answers.get(PRESENT) if host else None
        if host is None or host.bad or answer is None:
            found.append(_became(name, host, False, PRESENT))
            continue
        changes = _changes(host)
        words = (
            f"{len(changes)} {'change' if len(changes) == 1 else 'changes'}: {', '.join(changes)}"
        )
        data = {
            "state": "planned",
            "changed": host.changed,
            "actions": changes,
            "diff": _diff(answer.get("diff") or []),
            "before": answer.get("before", ""),
        }
        found.append(
            Result(name, "a host", "pass", "", words if host.changed else "no changes", data=data)
        )
    return found


def _diff(told: Iterable[Mapping[str, Any]]) -> str:
    """Ansible's differences as one text: those that came as such, and those of two texts."""
    found = []
    for one in told:
        before, after = (
            str(one.get(name, "")).splitlines(keepends=True) for name in ("before", "after")
        )
        names = (str(one.get("before_header", "")), str(one.get("after_header", "")))
        found.append(
            str(one.get("prepared", "")) + "".join(difflib.unified_diff(before, after, *names))
        )
    return "".join(found)


def answered(names: Iterable[str], hosts: Mapping[str, Host], module: str) -> list[Result]:
    """What `check` or `smoke` said of each host."""
    found = []
    for name in names:
        host = hosts.get(name)
        answer = host.answers.get(module) if host else None
        if host is None or host.bad or answer is None:
            found.append(_became(name, host, False, module))
        else:
            results = answer.get("results", [])
            counts = Counter(str(one.get("status")) for one in results)
            words = [f"{count} {status}" for status, count in counts.items()]
            if len(results) < _FEW:
                words = [f"{one.get('id')} {one.get('status')}" for one in results]
            status: Status = "warn" if counts["warn"] else "pass"
            found.append(
                Result(name, "a host", status, "", ", ".join(words), data={"results": results})
            )
    return found


def state(names: Iterable[str], hosts: Mapping[str, Host]) -> list[Result]:
    """`fleet status`: how each host does, and in what it differs from most."""
    facts = {
        name: host.answers["optillm_info"]
        for name, host in hosts.items()
        if "optillm_info" in host.answers
    }
    usual = majority(facts.values(), ("version", "release"))
    found = []
    for name in names:
        told = facts.get(name)
        if told is None:
            found.append(_became(name, hosts.get(name), False, "optillm_info"))
            continue
        fields = ("version", "release", "state", "tiers", "drift", "restarts", "problem")
        data = {"service" if field == "state" else field: told.get(field) for field in fields}
        data["differs"] = [name for name, value in usual.items() if told.get(name) != value]
        wrong = [
            f"{tier} {status}"
            for tier, status in (told.get("tiers") or {}).items()
            if status != "pass"
        ]
        problem, drift = str(told.get("problem") or ""), told.get("drift") or []
        words = [told.get("release") or "nothing in force", problem or ", ".join(wrong) or "green"]
        # without a path it only follows from the others
        words += [
            f"drift: {', '.join([one for one in drift if '/' in one] or drift)}"
            if drift
            else "no drift"
        ]
        words += [f"{told.get('restarts') or 0} restarts"]
        words += [f"most have {usual['release'] or 'nothing'}"] if data["differs"] else []
        red = bool(problem or wrong or drift or not told.get("release"))
        status: Status = "fail" if red else "warn" if data["differs"] else "pass"
        remedy = ""
        if drift:
            remedy = f"optictl fleet plan --limit {name} --force shows the difference, fleet apply mends it"
        elif red and told.get("release"):
            remedy = f"optictl fleet check --limit {name}"
        found.append(Result(name, "a host", status, "", "; ".join(words), remedy=remedy, data=data))
    return found


def majority(facts: Iterable[Mapping[str, Any]], fields: Sequence[str]) -> dict[str, Any]:
    """field -> the value that most have; the greatest of those that equally many have."""
    facts = list(facts)
    found = {}
    for name in fields:
        counts = Counter(str(one.get(name) or "") for one in facts)
        if counts:
            found[name] = max(counts, key=lambda value: (counts[value], value))
    return found


def code(found: Sequence[Result], interrupted: bool = False) -> int:
    """The exit code: 0 all well, 78 a configuration is invalid, 4 a host went back, 130 interrupted, else 1."""
    if interrupted:
        return 130
    data = [r.data or {} for r in found if r.status != "pass"]
    if any(one.get("rc") == INVALID for one in data):
        return INVALID
    if any(one.get("state") == "went back" for one in data):
        return ROLLED_BACK
    return int(any(r.status in ("fail", "error", "skip") for r in found))


def headline(found: Sequence[Result]) -> str:
    """One line about all hosts: how many of each kind."""
    words = {"pass": "good", "warn": "worth a look", "fail": "red"}
    states = Counter((r.data or {}).get("state") or words.get(r.status, r.status) for r in found)
    changed = sum(bool((r.data or {}).get("changed")) for r in found)
    hosts = f"{len(found)} {'host' if len(found) == 1 else 'hosts'}"
    if set(states) == {"done"}:
        return f"{hosts} done, {changed} changed"
    if set(states) == {"planned"}:
        return f"{hosts}, {changed} would change"
    return f"{hosts}: {', '.join(f'{count} {name}' for name, count in states.items())}"
