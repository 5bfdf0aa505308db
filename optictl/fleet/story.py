"""What Ansible's events tell about each host. Pure: events in, facts out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optictl.results import Result

_OURS = "optictl.optillm."
#: The tasks that people are told of, by their module; the others are over at once.
_PHASES = {
    "optillm_host_info": "look at the host",
    "optillm_wheels": "send the wheels",
    "optillm_program": "have optictl",
    "optillm_deployment": "build and prove",
    "optillm_rollback": "go back",
    "optillm_info": "look",
    "optillm_check": "check",
    "optillm_smoke": "smoke",
}
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
    def deployed(self) -> dict[str, Any] | None:
        """What the switch ended with, if it was reached."""
        return self.answers.get("optillm_deployment/present")

    @property
    def bad(self) -> bool:
        return self.failed is not None or bool(self.unreachable)


class Story:
    """One playbook, as its events come."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self.said: list[str] = []

    def see(self, event: Mapping[str, Any]) -> str:
        """Take one event of ansible-runner in; a line for people, or ""."""
        kind, data = event.get("event", ""), event.get("event_data") or {}
        if kind in ("error", "warning") or (not data and "ERROR" in event.get("stdout", "")):
            self.said.append(event.get("stdout", ""))
        name = data.get("host")
        if not name:
            return ""
        host = self.hosts.setdefault(name, Host(name))
        phase = _phase(data)
        if kind == "runner_on_start":
            if phase:
                host.phase = phase
            return f"{name}  {phase}" if phase else ""
        res = data.get("res") or {}
        if kind == "runner_on_ok":
            return self._ok(host, data, res)
        if kind == "runner_on_failed" and not data.get("ignore_errors"):
            host.failed = {"msg": "it failed", **res}
            return f"{name}  FAILED ({host.phase}): {_line(host.failed['msg'])}"
        if kind == "runner_on_unreachable":
            host.unreachable = _line(res.get("msg", "unreachable"))
            return f"{name}  UNREACHABLE: {host.unreachable}"
        return ""

    def _ok(self, host: Host, data: Mapping[str, Any], res: dict[str, Any]) -> str:
        host.facts.update(res.get("ansible_facts") or {})
        module = _module(data)
        if not module:
            return ""
        changed = bool(res.get("changed"))
        host.changed = host.changed or changed
        state = _state(data)
        host.answers[f"{module}/{state}" if state else module] = res
        return f"{host.name}  {_phase(data)}: done" if changed else ""


def _module(data: Mapping[str, Any]) -> str:
    action = str(data.get("task_action") or data.get("resolved_action") or "")
    return action.removeprefix(_OURS) if action.startswith(_OURS) else ""


def _state(data: Mapping[str, Any]) -> str:
    """Which use of optillm_deployment it is; told by the task's name, which is ours."""
    if _module(data) != "optillm_deployment":
        return ""
    return "built" if str(data.get("task", "")).endswith("Build and prove") else "present"


def _phase(data: Mapping[str, Any]) -> str:
    if _state(data) == "present":
        return "switch, check and smoke"
    return _PHASES.get(_module(data), "")


def _line(text: object) -> str:
    return " ".join(str(text).split())


# -- what became of each host


def outcome(names: Iterable[str], roll: Mapping[str, Host], interrupted: bool, module: str) -> list[Result]:
    """What a roll-out did to each host.

    `names`: every host that it was for, `roll`: those that it reached. `module`: whose result says that a host is done.
    """
    return [_became(name, roll.get(name), interrupted, module) for name in names]


def _became(name: str, host: Host | None, interrupted: bool, module: str) -> Result:
    def result(status: Any, state: str, found: str, remedy: str = "", **data: Any) -> Result:
        phase = host.phase if host else ""
        facts = {"state": state, "changed": bool(host and host.changed), "phase": phase, **data}
        return Result(name, "a host", status, "done and green", found, remedy=remedy, data=facts)

    done = host.answers.get(module) if host else None
    if host is None or not (host.phase or host.bad):
        return result("skip", "untouched", "untouched: the roll-out stopped before it")
    if host.unreachable:
        return result(
            "fail", "unreachable", f"unreachable ({host.phase or 'at the start'}): {host.unreachable}",
            f"look whether ssh {name} works",
        )  # fmt: skip
    if host.failed is not None:
        why, remedy = _line(host.failed["msg"]), str(host.failed.get("remedy") or "")
        told = {name: host.failed[name] for name in ("before", "release", "rc", "results") if host.failed.get(name)}
        if host.failed.get("rolled_back"):
            now = host.failed.get("release") or "nothing"
            return result("fail", "went back", f"went back to {now}: {why}", remedy, **told)
        return result("fail", "failed", f"failed ({host.phase}): {why}", remedy, **told)
    if done is None:
        if interrupted:
            return result("fail", "interrupted", f"interrupted ({host.phase}); its own optictl ends by itself")
        return result("skip", "untouched", f"not switched: the roll-out stopped before it ({host.phase} was the last)")
    release, before = done.get("release", ""), done.get("before", "")
    words = (
        release if not host.changed else f"{before or 'nothing'} -> {release}" if before != release else f"{release}, changed"
    )
    return result("pass", "done", words if host.changed else f"{release}, unchanged", release=release, before=before)


def planned(names: Iterable[str], hosts: Mapping[str, Host]) -> list[Result]:
    """What a roll-out would do to each host."""
    found = []
    for name in names:
        host = hosts.get(name)
        answer = host.deployed if host else None
        if host is None or host.bad or answer is None:
            found.append(_became(name, host, False, "optillm_deployment/present"))
            continue
        # the wheels and the program are told of by nobody else
        actions = [words for key, words in _BESIDE.items() if (host.answers.get(key) or {}).get("changed")]
        actions += answer.get("actions", [])
        words = f"{len(actions)} changes: {', '.join(actions)}" if host.changed else "no changes"
        diff = "".join(str(one.get("prepared", "")) for one in answer.get("diff", []) if isinstance(one, dict))
        data = {
            "state": "planned",
            "changed": host.changed,
            "actions": actions,
            "diff": diff,
            "before": answer.get("before", ""),
        }
        found.append(Result(name, "a host", "pass", "", words, data=data))
    return found


_BESIDE = {"optillm_wheels": "send wheels", "optillm_program": "install optictl"}


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
            good = sum(one.get("status") == "pass" for one in results)
            found.append(Result(name, "a host", "pass", "", f"{good} of {len(results)} good", data={"results": results}))
    return found


def state(names: Iterable[str], hosts: Mapping[str, Host]) -> list[Result]:
    """`fleet status`: how each host does, and in what it differs from most."""
    facts = {name: host.answers["optillm_info"] for name, host in hosts.items() if "optillm_info" in host.answers}
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
        wrong = [f"{tier} {status}" for tier, status in (told.get("tiers") or {}).items() if status != "pass"]
        problem = str(told.get("problem") or "")
        words = [told.get("release") or "nothing in force", *([problem or ", ".join(wrong)] if problem or wrong else ["green"])]
        words += [f"{len(told['drift'])} changes to make"] if told.get("drift") else []
        words += [f"{told['restarts']} restarts"] if told.get("restarts") else []
        words += [f"most have another {' and '.join(data['differs'])}"] if data["differs"] else []
        red = bool(problem or wrong or told.get("drift") or not told.get("release"))
        status = "fail" if red else "warn" if data["differs"] else "pass"
        found.append(Result(name, "a host", status, "", "; ".join(words), data=data))  # type: ignore[arg-type]
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
    words = {"pass": "good", "warn": "differing", "fail": "red"}
    states = Counter((r.data or {}).get("state") or words.get(r.status, r.status) for r in found)
    changed = sum(bool((r.data or {}).get("changed")) and (r.data or {}).get("state") == "done" for r in found)
    if set(states) <= {"done"}:
        return f"{len(found)} hosts done, {changed} changed"
    return ", ".join(f"{count} {name}" for name, count in states.items())
