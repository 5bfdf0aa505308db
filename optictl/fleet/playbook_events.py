"""The state of each host from Ansible's events. Pure: events in, results out."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from optictl import records
from optictl.fleet import event_records
from optictl.fleet.event_records import (
    Answer,
    DeploymentInfo,
    Difference,
    EventData,
    Failure,
    HostInfo,
    RequestedDeployment,
)
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
#: The fact of the role that says what the inventory asks for.
_REQUESTED = "optillm_proxy_wanted"
_UNREADABLE = (
    "use the collection that is part of this optictl: "
    "unset ANSIBLE_COLLECTIONS_PATH, then run it again"
)


@dataclass
class Host:
    """One host in one play.

    `phase`: its last step. `answers`: step -> its result. `info` and `host_info`: the answers of
    the modules with these names. `requested`: what the inventory asks for. `failed`: the failure
    that ended the play for this host. `unreachable`: why Ansible cannot connect, or "".
    """

    name: str
    phase: str = ""
    changed: bool = False
    answers: dict[str, Answer] = field(default_factory=dict)
    info: DeploymentInfo | None = None
    host_info: HostInfo | None = None
    requested: RequestedDeployment | None = None
    failed: Failure | None = None
    unreachable: str = ""

    @property
    def bad(self) -> bool:
        """Whether the host failed or is unreachable."""
        return self.failed is not None or bool(self.unreachable)

    def answer(self, step: str, result: Mapping[str, Any]) -> None:
        """Take the answer of a module of our collection.

        Raises:
            ValueError: it has another shape.
        """
        if step == "optillm_host_info":
            self.host_info = records.parse(HostInfo, result)
        elif step == "optillm_info":
            self.info = records.parse(DeploymentInfo, result)
        answer = records.parse(Answer, result)
        self.changed = self.changed or answer.changed
        self.answers[step] = answer


class PlaybookEvents:
    """The hosts of one playbook, from its events. `foreseen`: the playbook runs in check mode."""

    def __init__(self, *, foreseen: bool = False) -> None:
        self.hosts: dict[str, Host] = {}
        self._foreseen = foreseen

    def add(self, event: Mapping[str, Any]) -> str:
        """Record an event of ansible-runner. Returns a line to show, or ""."""
        parsed = event_records.read_event(event)
        if parsed is None or not parsed.event_data.host:
            return ""
        data, name = parsed.event_data, parsed.event_data.host
        host = self.hosts.setdefault(name, Host(name))
        step = _step(data)
        phase = _PHASES.get(step, "")
        if self._foreseen and phase and step != "optillm_host_info":
            phase = "plan"
        result = data.res or {}
        match parsed.event:
            case "runner_on_start":
                if not phase or (self._foreseen and host.phase == phase):
                    return ""
                host.phase = phase
                return f"{name}  {phase}"
            case "runner_on_ok":
                return self._succeeded(host, step, phase, data)
            case "runner_on_failed" if not data.ignore_errors:
                return _failed(host, event_records.read_failure(result))
            case "runner_on_unreachable":
                words = str(result.get("msg", "unreachable"))
                host.unreachable = _line(words.removeprefix("Task failed: ").removeprefix(_VIA_SSH))
                return f"{name}  UNREACHABLE: {host.unreachable}"
            case _:
                return ""

    def _succeeded(self, host: Host, step: str, phase: str, data: EventData) -> str:
        result = data.res or {}
        requested = (result.get("ansible_facts") or {}).get(_REQUESTED)
        try:
            if requested is not None:
                host.requested = records.parse(RequestedDeployment, requested)
            if step:
                host.answer(step, result)
        except ValueError as error:
            what = f"the answer of {step or _REQUESTED} cannot be read: {error}"
            return _failed(host, Failure(what, remedy=_UNREADABLE))
        if not step or not host.answers[step].changed or self._foreseen:
            return ""
        return f"{host.name}  {phase}: done{_took(data)}"


def _failed(host: Host, failure: Failure) -> str:
    host.failed = failure
    return f"{host.name}  FAILED ({host.phase}): {_line(failure.msg)}"


def _step(data: EventData) -> str:
    """The step of an event: a module of our collection, and its use. "" for other modules."""
    action = data.task_action or data.resolved_action or ""
    if not action.startswith(_OURS):
        return ""
    use = _USES.get(data.task.rpartition(" : ")[2], "")
    return action.removeprefix(_OURS) + (f"/{use}" if use else "")


def _took(data: EventData) -> str:
    seconds = round(data.duration or 0)
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


@dataclass(frozen=True)
class _Ending:
    """How a run ended for a host: the fields of its result that differ from host to host."""

    status: Status
    state: str
    found: str
    remedy: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


def _became(name: str, host: Host | None, interrupted: bool, module: str) -> Result:
    ending = _ending(name, host, interrupted, module)
    data = {
        "state": ending.state,
        "changed": bool(host and host.changed),
        "phase": host.phase if host else "",
        **ending.data,
    }
    expected = "all checks pass" if module in (PRESENT, "optillm_rollback") else "an answer"
    return Result(
        name, "a host", ending.status, expected, ending.found, remedy=ending.remedy, data=data
    )


def _ending(name: str, host: Host | None, interrupted: bool, module: str) -> _Ending:
    if host is None or not (host.phase or host.bad):
        return _Ending("skip", "untouched", "not started: the run ended before this host")
    if host.unreachable:
        words = f"unreachable ({host.phase or 'at the start'}): {host.unreachable}"
        remedy = f"check that `ssh {name}` works, or leave the host out: --limit 'all:!{name}'"
        return _Ending("fail", "unreachable", words, remedy)
    if host.failed is not None:
        why, remedy = _line(host.failed.msg), host.failed.remedy or ""
        state, words = "failed", f"failed ({host.phase}): {why}"
        if host.failed.rolled_back:
            state, words = "went back", f"rolled back to {host.failed.release or 'nothing'}: {why}"
        return _Ending("fail", state, words, remedy, host.failed.details)
    if (done := host.answers.get(module)) is not None:
        return _done(host, done, module)
    if interrupted:
        words = (
            f"interrupted ({host.phase}): "
            "optictl on the host completes the change, or rolls it back"
        )
        return _Ending("fail", "interrupted", words, f"optictl fleet status --limit {name}")
    words = f"not switched: the run ended after this step: {host.phase}"
    return _Ending("skip", "untouched", words)


def _done(host: Host, done: Answer, module: str) -> _Ending:
    """The end of a host whose last step was done."""
    release, before = done.release or "", done.before or ""
    words = f"{before or 'nothing'} -> {release}"
    if before == release:
        words = (
            f"{release}, changed: {', '.join(_changes(host))}"
            if host.changed
            else f"{release}, unchanged"
        )
    if module == PRESENT and "optillm_program/current" not in host.answers:
        words += "; the run ended before the new optictl was activated"
        return _Ending("skip", "switched", words)
    return _Ending("pass", "done", words, data={"release": release, "before": before})


def _changes(host: Host) -> list[str]:
    """The changes on a host, done or planned."""
    # only optillm_deployment lists its actions
    steps = {step: answer for step, answer in host.answers.items() if answer.changed}
    changes = ["send wheels"] * ("optillm_wheels" in steps) + ["install optictl"] * any(
        "program" in step for step in steps
    )
    present = host.answers.get(PRESENT)
    return [*changes, *(present.actions if present else ())]


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
            "diff": _diff(answer.diff),
            "before": answer.before or "",
        }
        results.append(
            Result(name, "a host", "pass", "", words if host.changed else "no changes", data=data)
        )
    return results


def _diff(differences: Iterable[Difference]) -> str:
    """Ansible's differences as one text. Each has a prepared text, or two texts to compare."""
    texts = []
    for difference in differences:
        before, after = (
            text.splitlines(keepends=True) for text in (difference.before, difference.after)
        )
        names = (difference.before_header, difference.after_header)
        texts.append(difference.prepared + "".join(difflib.unified_diff(before, after, *names)))
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
            results = list(answer.results)
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
    deployments = {name: host.info for name, host in hosts.items() if host.info is not None}
    usual = majority(map(asdict, deployments.values()), ("version", "release"))
    results = []
    for name in names:
        info = deployments.get(name)
        if info is None:
            results.append(_became(name, hosts.get(name), False, "optillm_info"))
            continue
        results.append(_state_of(name, info, usual))
    return results


def _state_of(name: str, info: DeploymentInfo, usual: Mapping[str, Any]) -> Result:
    """The state of one host. `usual`: what most hosts have."""
    data = {
        "version": info.version,
        "release": info.release,
        "service": info.state,
        "tiers": info.tiers,
        "drift": list(info.drift),
        "restarts": info.restarts,
        "problem": info.problem,
        "differs": [name for name, value in usual.items() if getattr(info, name) != value],
    }
    wrong = [f"{tier} {status}" for tier, status in info.tiers.items() if status != "pass"]
    # a change without a path only follows from the others
    drift = ", ".join([step for step in info.drift if "/" in step] or info.drift)
    words = [
        info.release or "no active release",
        info.problem or ", ".join(wrong) or "all tiers pass",
        f"drift: {drift}" if info.drift else "no drift",
        f"{info.restarts} restarts",
        *([f"most hosts have {usual['release'] or 'no release'}"] if data["differs"] else []),
    ]
    failed = bool(info.problem or wrong or info.drift or not info.release)
    status: Status = "fail" if failed else "warn" if data["differs"] else "pass"
    remedy = ""
    if info.drift:
        remedy = (
            f"optictl fleet plan --limit {name} --force shows the difference, "
            "and optictl fleet apply fixes it"
        )
    elif failed and info.release:
        remedy = f"optictl fleet check --limit {name}"
    return Result(name, "a host", status, "", "; ".join(words), remedy=remedy, data=data)


def majority(deployments: Iterable[Mapping[str, Any]], fields: Sequence[str]) -> dict[str, Any]:
    """The most frequent value of each field. With equal counts, the greatest value."""
    hosts = list(deployments)
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
    if any(details.get("rc") == INVALID for details in data):
        return INVALID
    if any(details.get("state") == "went back" for details in data):
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
