"""`optictl status`: the state of a deployment from systemd, the health tiers and the journal."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from optictl.checks import catalog
from optictl.deployment.paths import Paths
from optictl.errors import MissingFact
from optictl.facts import units as facts_units
from optictl.facts.deployment import Deployment
from optictl.host.systemd import Systemd, Unit
from optictl.releases import store
from optictl.results import roots

_TIERS = ("health.alive", "health.locked", "health.connected")


@dataclass(frozen=True)
class Status:
    """The state of a deployment.

    `state`: systemd's state, "" without systemd. `tiers`: check id -> status. `memory`: in bytes.
    `problem` and `next`: what is wrong, and the command that fixes it.
    """

    state: str
    since: str
    doing: str
    release: str
    restarts: int
    memory: int | None
    main_pid: int
    drop_ins: list[str]
    tiers: dict[str, str]
    problem: str
    next: str

    @property
    def good(self) -> bool:
        return all(status == "pass" for status in self.tiers.values())

    def as_dict(self) -> dict[str, Any]:
        return {"id": "status", "status": "pass" if self.good else "fail", "data": asdict(self)}


def read_status(paths: Paths, config_path: Path) -> Status:
    """The state of the deployment now. Reads only, and costs no tokens."""
    deployment = Deployment(paths, config_path)
    tier_results = catalog.run(catalog.select(_TIERS), deployment)
    results = {r.id: r for r in tier_results}
    worst = next(iter(roots(tier_results)), None) or next(
        (r for r in tier_results if r.status != "pass"), None
    )
    units = facts_units.read_units(paths)
    problem = f"{worst.id}: {worst.found}" if worst else ""
    step = worst.remedy or paths.command("check") if worst else ""
    if units is None:
        memory, pid = _memory(deployment, None), _pid(deployment)
        return Status(
            "",
            "",
            "",
            store.active_release(paths) or "",
            0,
            memory,
            pid,
            [],
            _tiers(results),
            problem,
            step,
        )
    unit = units[paths.service_unit]
    if not unit.loaded:
        step = paths.command("install")
    elif worst and unit.active_state != "active":
        systemd = Systemd(paths.scope)
        failed = (
            ""
            if _was_stopped(unit, units[paths.socket_unit])
            else facts_units.last_problem(systemd, paths)
        )
        problem = (
            facts_units.port_taken(systemd, paths, deployment.config.listen.port)
            or failed
            or problem
        )
    state = f"{unit.active_state} ({unit.sub_state})"
    if unit.exec_main_status == 78 and not unit.main_pid:
        state = f"{state}, the configuration was refused (78)"
    return Status(
        state=state,
        since=unit.state_change_timestamp,
        # systemd keeps the last status text of a stopped service
        doing=unit.status_text if unit.active else "",
        release=store.active_release(paths) or "",
        restarts=unit.restarts,
        memory=_memory(deployment, unit.memory_current),
        main_pid=unit.main_pid,
        drop_ins=list(unit.drop_in_paths),
        tiers=_tiers(results),
        problem=problem,
        next=step,
    )


def _was_stopped(service: Unit, socket: Unit) -> bool:
    """Whether the service was stopped on purpose.

    Its journal then only has problems of earlier runs.
    """
    return (
        service.active_state == "inactive"
        and service.result == "success"
        and socket.active_state != "failed"
    )


def _tiers(results: dict[str, Any]) -> dict[str, str]:
    return {id: results[id].status for id in _TIERS}


def _memory(deployment: Deployment, counted: int | None) -> int | None:
    """The memory that systemd accounts; without accounting, the memory of the processes."""
    if counted is not None:
        return counted
    try:
        return deployment.memory or None
    except MissingFact:
        return None


def _pid(deployment: Deployment) -> int:
    try:
        return deployment.live.processes[0].pid
    except MissingFact:
        return 0
