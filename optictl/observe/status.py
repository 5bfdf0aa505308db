"""`optictl status`: the state of a deployment from systemd, the health tiers and the journal."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from optictl.checks import catalog
from optictl.deployment.paths import Paths
from optictl.errors import MissingFact
from optictl.facts import units as facts_units
from optictl.facts.deployment import Deployment
from optictl.host.systemd import Systemd, Unit
from optictl.releases import store, verification
from optictl.releases.verification import Verification
from optictl.results import roots

_TIERS = ("health.alive", "health.locked", "health.connected")


@dataclass(frozen=True)
class UnitState:
    """The state of one unit. `memory`: in bytes, None where systemd does not count it."""

    name: str
    state: str
    doing: str = ""
    main_pid: int = 0
    restarts: int = 0
    memory: int | None = None


@dataclass(frozen=True)
class Status:
    """The state of a deployment.

    `state`: systemd's state of the service, "" without systemd. `units`: every unit that exists,
    the service first. `tiers`: check id -> status. `memory`: of all units, in bytes.
    `problem` and `next`: what is wrong, and the command that fixes it. `verification`:
    whether the guard's promises hold on the release; None without one.
    """

    state: str = ""
    since: str = ""
    doing: str = ""
    release: str = ""
    restarts: int = 0
    memory: int | None = None
    main_pid: int = 0
    drop_ins: list[str] = field(default_factory=list)
    tiers: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    next: str = ""
    verification: Verification | None = None
    units: list[UnitState] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return all(status == "pass" for status in self.tiers.values())

    def as_dict(self) -> dict[str, Any]:
        return {"id": "status", "status": "pass" if self.good else "fail", "data": asdict(self)}


def read_status(paths: Paths, config_path: Path) -> Status:
    """The state of the deployment now. Reads only, and costs no tokens."""
    deployment = Deployment(paths, config_path)
    results = catalog.run(catalog.select(_TIERS), deployment)
    worst = next(iter(roots(results)), None) or next(
        (r for r in results if r.status != "pass"), None
    )
    statuses = {r.id: r.status for r in results}
    status = Status(
        release=store.active_release(paths) or "",
        tiers={id: statuses[id] for id in _TIERS},
        problem=f"{worst.id}: {worst.found}" if worst else "",
        next=worst.remedy or paths.command("check") if worst else "",
        verification=_verification(deployment),
    )
    units = facts_units.read_units(paths)
    if units is None:
        return replace(status, memory=_memory(deployment), main_pid=_pid(deployment))
    unit = units[paths.service_unit]
    if not unit.loaded:
        status = replace(status, next=paths.command("install"))
    elif worst and unit.active_state != "active":
        problem = _why_stopped(deployment, unit, units[paths.socket_unit])
        status = replace(status, problem=problem or status.problem)
    status = replace(status, units=[unit_state(each) for each in units.values() if each.loaded])
    return _of_unit(status, unit, deployment)


def unit_state(unit: Unit) -> UnitState:
    """What a person wants to know of a unit."""
    return UnitState(
        unit.name,
        f"{unit.active_state} ({unit.sub_state})",
        # systemd keeps the last status text of a stopped service
        unit.status_text if unit.active or unit.main_pid else "",
        unit.main_pid,
        unit.restarts,
        unit.memory_current,
    )


def _of_unit(status: Status, unit: Unit, deployment: Deployment) -> Status:
    """The status with what systemd says of the service."""
    memories = [each.memory for each in status.units if each.memory is not None]
    accounted = sum(memories) if memories else None
    state = f"{unit.active_state} ({unit.sub_state})"
    if unit.exec_main_status == 78 and not unit.main_pid:
        state = f"{state}, the configuration was refused (78)"
    return replace(
        status,
        state=state,
        since=unit.state_change_timestamp,
        doing=unit.status_text if unit.active or unit.main_pid else "",
        restarts=unit.restarts,
        # without accounting, the memory of the processes
        memory=_memory(deployment) if accounted is None else accounted,
        main_pid=unit.main_pid,
        drop_ins=list(unit.drop_in_paths),
    )


def _why_stopped(deployment: Deployment, service: Unit, socket: Unit) -> str:
    """Why the service does not run: its port is taken, or its journal says so. "" if neither."""
    paths, systemd = deployment.paths, Systemd(deployment.paths.scope)
    if taken := facts_units.port_taken(systemd, paths, deployment.config.listen.port):
        return taken
    return "" if _was_stopped(service, socket) else facts_units.last_problem(systemd, paths)


def _was_stopped(service: Unit, socket: Unit) -> bool:
    """Whether the service was stopped on purpose.

    Its journal then only has problems of earlier runs.
    """
    return (
        service.active_state == "inactive"
        and service.result == "success"
        and socket.active_state != "failed"
    )


def _verification(deployment: Deployment) -> Verification | None:
    try:
        release, record = deployment.release, deployment.release_record
        return verification.of(release, record, deployment.config.strategies)
    except MissingFact:
        return None


def _memory(deployment: Deployment) -> int | None:
    """The memory of the processes that serve the port."""
    try:
        return deployment.memory or None
    except MissingFact:
        return None


def _pid(deployment: Deployment) -> int:
    try:
        return deployment.live.processes[0].pid
    except MissingFact:
        return 0
