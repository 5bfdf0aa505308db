"""The state of each host from Ansible's events. Pure: events in, results out."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optictl.results import Result, Status

_OURS = "optictl.optillm."
#: Module, and use of it -> what the host does, for messages. Tasks of other collections are short.
_PHASES = {
    "optillm_host_info": "read the host's facts",
    "optillm_wheels": "send the wheels",
    "optillm_program": "install optictl",
    "optillm_program/current": "activate optictl",
    "optillm_deployment/built": "build and test",
    "optillm_deployment/present": "switch, check and smoke",
    "optillm_rollback": "roll back",
    "optillm_info": "read the state",
    "optillm_check": "check",
    "optillm_smoke": "smoke",
}
_VIA_SSH = "Failed to connect to the host via ssh: "
#: The name of a task -> which use of its module it is.
_USES = {
    "Build and test": "built",
    "Switch, check and smoke": "present",
    "Activate optictl": "current",
}
#: The step whose result completes the roll-out of a host.
PRESENT = "optillm_deployment/present"
#: Below this number of results, each is shown by name.
_FEW = 5
#: Exit codes of optictl.
INVALID, ROLLED_BACK = 78, 4


@dataclass
class Host:
    """One host in one play.

    `phase`: its last step. `answers`: step -> its result. `facts`: the facts of set_fact. `failed`:
    the result that ended the play for this host. `unreachable`: why Ansible cannot connect, or "".
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
        """Whether the host failed or is unreachable."""
        return self.failed is not None or bool(self.unreachable)


class PlaybookEvents:
    """The hosts of one playbook, from its events. `foreseen`: the playbook runs in check mode."""

    def __init__(self, *, foreseen: bool = False) -> None:
        self.hosts: dict[str, Host] = {}
        self._foreseen = foreseen

    def add(self, event: Mapping[str, Any]) -> str:
        """Record an event of ansible-runner. Returns a line to show, or ""."""
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
            host.failed = {"msg": "the task failed", **res}
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
    """The step of an event: a module of our collection, and its use. "" for other modules."""
    action = str(data.get("task_action") or data.get("resolved_action") or "")
    if not action.startswith(_OURS):
        return ""
    use = _USES.get(str(data.get("task", "")).rpartition(" : ")[2], "")
    return action.removeprefix(_OURS) + (f"/{use}" if use else "")


def _took(data: Mapping[str, Any]) -> str:
    seconds = round(float(data.get("duration") or 0))
    return f" ({seconds} s)" if seconds else ""


def complaints(output: str) -> list[str]:
    """Ansible's warnings and errors about an inventory, from its output."""
    lines = [
        line.partition("]: ")[2]
        for line in output.splitlines()
        if line.startswith(("[WARNING]: ", "[ERROR]: "))
    ]
    return [line for line in lines if "implicit localhost" not in line][:4]


def _line(text: object) -> str:
    return " ".join(str(text).split())


# -- results


def outcome(
    names: Iterable[str], roll: Mapping[str, Host], interrupted: bool, module: str
) -> list[Result]:
    """The result of a roll-out on each host.

    `names`: all hosts. `roll`: the hosts with events. `module`: the step that completes a host.
    """
    return [_became(name, roll.get(name), interrupted, module) for name in names]


def _became(name: str, host: Host | None, interrupted: bool, module: str) -> Result:
    def result(status: Status, state: str, found: str, remedy: str = "", **data: Any) -> Result:
        phase = host.phase if host else ""
        facts = {"state": state, "changed": bool(host and host.changed), "phase": phase, **data}
        expected = "all checks pass" if module in (PRESENT, "optillm_rollback") else "an answer"
        return Result(name, "a host", status, expected, found, remedy=remedy, data=facts)

    done = host.answers.get(module) if host else None
    if host is None or not (host.phase or host.bad):
        return result("skip", "untouched", "not started: the run ended before this host")
    if host.unreachable:
        remedy = f"check that `ssh {name}` works, or leave the host out: --limit 'all:!{name}'"
        return result(
            "fail",
            "unreachable",
            f"unreachable ({host.phase or 'at the start'}): {host.unreachable}",
            remedy,
        )
    if host.failed is not None:
        why, remedy = _line(host.failed["msg"]), str(host.failed.get("remedy") or "")
        details = {
            name: host.failed[name]
            for name in ("before", "release", "rc", "results")
            if host.failed.get(name)
        }
        if host.failed.get("rolled_back"):
            now = host.failed.get("release") or "nothing"
            return result("fail", "went back", f"rolled back to {now}: {why}", remedy, **details)
        return result("fail", "failed", f"failed ({host.phase}): {why}", remedy, **details)
    if done is None:
        if interrupted:
            words = (
                f"interrupted ({host.phase}): "
                "optictl on the host completes the change, or rolls it back"
            )
            return result("fail", "interrupted", words, f"optictl fleet status --limit {name}")
        return result(
            "skip", "untouched", f"not switched: the run ended after this step: {host.phase}"
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
            "skip", "switched", f"{words}; the run ended before the new optictl was activated"
        )
    return result("pass", "done", words, release=release, before=before)


def _changes(host: Host) -> list[str]:
    """The changes on a host, done or planned."""
    # only optillm_deployment lists its actions
    steps = {step: answer for step, answer in host.answers.items() if answer.get("changed")}
    changes = ["send wheels"] * ("optillm_wheels" in steps) + ["install optictl"] * any(
        "program" in step for step in steps
    )
    return changes + list((host.answers.get(PRESENT) or {}).get("actions", []))


def planned(names: Iterable[str], hosts: Mapping[str, Host]) -> list[Result]:
    """The result of a plan: what a roll-out would change on each host."""
    results = []
    for name in names:
        host = hosts.get(name)
        answer = host.answers.get(PRESENT) if host else None
        if host is None or host.bad or answer is None:
            results.append(_became(name, host, False, PRESENT))
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
        results.append(
            Result(name, "a host", "pass", "", words if host.changed else "no changes", data=data)
        )
    return results


def _diff(differences: Iterable[Mapping[str, Any]]) -> str:
    """Ansible's differences as one text. Each has a prepared text, or two texts to compare."""
    texts = []
    for difference in differences:
        before, after = (
            str(difference.get(name, "")).splitlines(keepends=True) for name in ("before", "after")
        )
        names = (str(difference.get("before_header", "")), str(difference.get("after_header", "")))
        diff = "".join(difflib.unified_diff(before, after, *names))
        texts.append(str(difference.get("prepared", "")) + diff)
    return "".join(texts)


def answered(names: Iterable[str], hosts: Mapping[str, Host], module: str) -> list[Result]:
    """The result of `check` or `smoke` on each host."""
    host_results = []
    for name in names:
        host = hosts.get(name)
        answer = host.answers.get(module) if host else None
        if host is None or host.bad or answer is None:
            host_results.append(_became(name, host, False, module))
        else:
            results = answer.get("results", [])
            counts = Counter(str(result.get("status")) for result in results)
            words = [f"{count} {status}" for status, count in counts.items()]
            if len(results) < _FEW:
                words = [f"{result.get('id')} {result.get('status')}" for result in results]
            status: Status = "warn" if counts["warn"] else "pass"
            host_results.append(
                Result(name, "a host", status, "", ", ".join(words), data={"results": results})
            )
    return host_results


def state(names: Iterable[str], hosts: Mapping[str, Host]) -> list[Result]:
    """The result of `fleet status`: the state of each host, and its differences from most hosts."""
    facts = {
        name: host.answers["optillm_info"]
        for name, host in hosts.items()
        if "optillm_info" in host.answers
    }
    usual = majority(facts.values(), ("version", "release"))
    results = []
    for name in names:
        info = facts.get(name)
        if info is None:
            results.append(_became(name, hosts.get(name), False, "optillm_info"))
            continue
        fields = ("version", "release", "state", "tiers", "drift", "restarts", "problem")
        data = {"service" if field == "state" else field: info.get(field) for field in fields}
        data["differs"] = [name for name, value in usual.items() if info.get(name) != value]
        wrong = [
            f"{tier} {status}"
            for tier, status in (info.get("tiers") or {}).items()
            if status != "pass"
        ]
        problem, drift = str(info.get("problem") or ""), info.get("drift") or []
        words = [
            info.get("release") or "no active release",
            problem or ", ".join(wrong) or "all tiers pass",
        ]
        # a change without a path only follows from the others
        words += [
            f"drift: {', '.join([one for one in drift if '/' in one] or drift)}"
            if drift
            else "no drift"
        ]
        words += [f"{info.get('restarts') or 0} restarts"]
        words += [f"most hosts have {usual['release'] or 'no release'}"] if data["differs"] else []
        failed = bool(problem or wrong or drift or not info.get("release"))
        status: Status = "fail" if failed else "warn" if data["differs"] else "pass"
        remedy = ""
        if drift:
            remedy = (
                f"optictl fleet plan --limit {name} --force shows the difference, "
                "and optictl fleet apply fixes it"
            )
        elif failed and info.get("release"):
            remedy = f"optictl fleet check --limit {name}"
        results.append(
            Result(name, "a host", status, "", "; ".join(words), remedy=remedy, data=data)
        )
    return results


def majority(facts: Iterable[Mapping[str, Any]], fields: Sequence[str]) -> dict[str, Any]:
    """The most frequent value of each field. With equal counts, the greatest value."""
    hosts = list(facts)
    values = {}
    for name in fields:
        counts = Counter(str(host.get(name) or "") for host in hosts)
        if counts:
            values[name] = max(counts, key=lambda value: (counts[value], value))
    return values


def code(results: Sequence[Result], interrupted: bool = False) -> int:
    """The exit code.

    0: every host passed. 78: a configuration is not valid. 4: a host rolled back. 130: interrupted.
    1: any other failure.
    """
    if interrupted:
        return 130
    data = [r.data or {} for r in results if r.status != "pass"]
    if any(one.get("rc") == INVALID for one in data):
        return INVALID
    if any(one.get("state") == "went back" for one in data):
        return ROLLED_BACK
    return int(any(r.status in ("fail", "error", "skip") for r in results))


def headline(results: Sequence[Result]) -> str:
    """One line about all hosts: how many are in each state."""
    words = {
        "pass": "passed",
        "warn": "with warnings",
        "fail": "failed",
        "went back": "rolled back",
    }
    names = ((r.data or {}).get("state") or r.status for r in results)
    states = Counter(words.get(name, name) for name in names)
    changed = sum(bool((r.data or {}).get("changed")) for r in results)
    hosts = f"{len(results)} {'host' if len(results) == 1 else 'hosts'}"
    if set(states) == {"done"}:
        return f"{hosts} done, {changed} changed"
    if set(states) == {"planned"}:
        return f"{hosts}, {changed} would change"
    return f"{hosts}: {', '.join(f'{count} {name}' for name, count in states.items())}"
