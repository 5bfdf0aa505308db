"""What ansible-runner and the modules of optictl's collection report, as typed records.

The collection runs on the hosts and imports nothing of optictl: these are the readers' side of what
its modules return. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optictl import records


@dataclass(frozen=True)
class EventData:
    """What an event is about. `res` is what the task's module returned."""

    host: str | None = None
    task: str = ""
    task_action: str | None = None
    resolved_action: str | None = None
    duration: float | None = None
    ignore_errors: bool | None = None
    res: dict[str, Any] | None = None


@dataclass(frozen=True)
class Event:
    """One event of ansible-runner."""

    event: str = ""
    event_data: EventData = field(default_factory=EventData)


@dataclass(frozen=True)
class Difference:
    """One of Ansible's differences: a prepared text, or two texts to compare."""

    prepared: str = ""
    before: str = ""
    after: str = ""
    before_header: str = ""
    after_header: str = ""


@dataclass(frozen=True)
class Answer:
    """What optictl's modules that change or ask a deployment return.

    `before`, `release`: the active release before and after. `actions`: the steps of the plan.
    `results`: those of checks and requests.
    """

    changed: bool = False
    release: str | None = None
    before: str | None = None
    actions: tuple[str, ...] = ()
    diff: tuple[Difference, ...] = ()
    results: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Failure:
    """Why a task failed. All fields but `msg` come from optictl's modules only.

    `rc`: the exit code of optictl.
    """

    msg: str
    remedy: str | None = None
    rc: int | None = None
    before: str | None = None
    release: str | None = None
    rolled_back: bool = False
    results: tuple[dict[str, Any], ...] = ()

    @property
    def details(self) -> dict[str, Any]:
        """What the results of a host show of it."""
        known = {
            "before": self.before,
            "release": self.release,
            "rc": self.rc,
            "results": list(self.results),
        }
        return {name: value for name, value in known.items() if value}


@dataclass(frozen=True)
class DeploymentInfo:
    """What the module optillm_info returns: the state of a deployment.

    `tiers`: check id -> status. `drift`: the steps that `install` would take.
    """

    release: str
    version: str
    tiers: dict[str, str]
    drift: tuple[str, ...]
    restarts: int
    problem: str
    state: str = ""


@dataclass(frozen=True)
class Interpreter:
    """The Python of a host that a release would use."""

    path: str
    version: tuple[int, ...]


@dataclass(frozen=True)
class HostInfo:
    """What the module optillm_host_info returns about a host without problems."""

    architecture: str
    glibc: tuple[int, ...]
    python: Interpreter


@dataclass(frozen=True)
class RequestedDeployment:
    """What the inventory asks for on a host (the fact optillm_proxy_wanted).

    `config`: optillm_proxy_config as it is. `version`: "" for the default.
    """

    config: Any
    version: str
    profile: str


def read_event(event: Mapping[str, Any]) -> Event | None:
    """An event of ansible-runner; None for one that is about no host."""
    data = {"event": event.get("event") or "", "event_data": event.get("event_data") or {}}
    try:
        return records.parse(Event, data)
    except ValueError:
        return None


def read_failure(result: Mapping[str, Any]) -> Failure:
    """Why a task failed. Modules of other collections return fields of other types."""
    message = result.get("msg", "the task failed")
    text = message if isinstance(message, str) else str(message)
    try:
        return records.parse(Failure, {**result, "msg": text})
    except ValueError:
        return Failure(text)
