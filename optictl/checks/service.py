"""Checks of the running service: its socket, its state, its memory, the release that it runs."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from optictl.checks.engine import Finding, Skip, check
from optictl.checks.service_units import START_BLOCKERS, loaded_service, systemctl
from optictl.deployment import remedies
from optictl.errors import NotApplicable
from optictl.facts import units as unit_facts
from optictl.facts.deployment import Deployment
from optictl.host import files, processes
from optictl.host.processes import Listener
from optictl.host.systemd import RUNTIME, Systemd, Unit
from optictl.releases import store

#: More restarts than this within the window are a restart loop.
_MAX_RESTARTS = 3
#: The window in seconds.
_WINDOW = 600
#: Memory usage, as a fraction of the limit, from which on the check fails.
_NEAR = 0.9
#: States of the service while a restart replaces its process.
_CHANGING = ("deactivating", "activating")
#: MESSAGE_ID of "Scheduled restart job" (sd-messages(3)).
_RESTART_MESSAGE = "5eb03494b6584870a536b337290809b3"


@check(
    "socket.owner",
    "systemd holds the port",
    "the listening socket belongs to optillm-proxy.socket",
    fault="systemd does not hold the port",
    live=True,
    requires=("config.valid", "unit.installed"),
    explained_by=("unit.matches", "unit.reloaded", "unit.no-weakening-dropin"),
)
def socket_owner(deployment: Deployment) -> Iterator[Finding]:
    """The port is held by systemd's socket unit, which stays open while the service restarts.

    How: reads the state of optillm-proxy.socket and, as root, whether PID 1 holds the listening
    socket.
    Why: another program on the port would receive LiteLLM's requests, and the proxy key with them.
    """
    deployment.require_managed()
    loaded_service(deployment)
    socket = deployment.units[deployment.paths.socket_unit]
    port = deployment.config.listen.port
    listeners = [listener for listener in processes.listeners() if listener.port == port]
    if not socket.active:
        stranger = (
            f", and process {deployment.live.pids} listens on port {port}"
            if deployment.is_live
            else ""
        )
        remedy = deployment.restart if stranger else deployment.start
        yield Finding(
            f"{deployment.paths.socket_unit} is {socket.active_state}{stranger}", "fail", remedy
        )
        return
    if not listeners:
        yield Finding(
            f"nothing listens on port {port}",
            "fail",
            systemctl(deployment, f"restart {deployment.paths.socket_unit}"),
            "systemd read the socket unit with another port",
        )
        return
    if deployment.paths.scope == "system":
        yield from _strangers(deployment, listeners)
    yield Finding(f"{deployment.paths.socket_unit} listens on port {port}")


def _strangers(deployment: Deployment, listeners: Sequence[Listener]) -> Iterator[Finding]:
    """Processes other than systemd that listen on the port. Only root can see PID 1's sockets."""
    held = processes.sockets_of(1)
    others = [listener for listener in listeners if held and listener.inode not in held]
    for pid, inodes in processes.owners({listener.inode for listener in others}).items():
        addresses = ", ".join(
            f"{listener.address}:{listener.port}" for listener in others if listener.inode in inodes
        )
        what = f"process {pid} listens on {addresses}, not on systemd's socket"
        yield Finding(what, "fail", deployment.without(pid))


@check(
    "service.active",
    "The service runs",
    "active, its main process alive",
    fault="The service does not run",
    felt=True,
    live=True,
    requires=("unit.installed",),
    explained_by=START_BLOCKERS,
)
def service_active(deployment: Deployment) -> Iterator[Finding]:
    """The service is started and has reported that it is ready.

    How: reads ActiveState of the unit, and the journal of its last run if it is not active. While
    a restart drains the service, its sibling must be active.
    Why: the socket still accepts connections while the service is down, so clients hang instead of
    failing.
    """
    unit = loaded_service(deployment)
    if unit.active_state == "active":
        yield Finding(f"active since {unit.active_enter_timestamp}")
        return
    sibling = deployment.units.get(deployment.paths.sibling_unit)
    if sibling is not None and sibling.active_state == "active" and unit.active_state in _CHANGING:
        yield Finding(f"{unit.active_state}, in a restart; {sibling.name} serves meanwhile")
        return
    cause = unit_facts.last_problem(Systemd(deployment.paths.scope), deployment.paths)
    if unit.exec_main_status == 78:  # systemd keeps restarting it
        logs = deployment.paths.command("logs --errors")
        yield Finding(
            "the guard refused the configuration",
            "fail",
            f"{logs} shows why; fix that, then {deployment.restart}",
            cause,
        )
        return
    if deployment.hand_made is not None:
        cause = deployment.hand_made.redact(cause)
    state = f"{unit.active_state} ({unit.sub_state}), result {unit.result}"
    yield Finding(state, "fail", deployment.start, cause, deployment.is_alone)


@check(
    "service.restarts",
    "The service is not in a restart loop",
    f"at most {_MAX_RESTARTS} restarts in {_WINDOW // 60} minutes",
    fault="The service is in a restart loop",
    felt=True,
    live=True,
    requires=("service.active",),
    explained_by=START_BLOCKERS,
)
def service_restarts(deployment: Deployment) -> Iterator[Finding]:
    """systemd did not have to restart the service repeatedly in the last minutes.

    How: reads NRestarts of the unit, which a manual start or restart resets, and the times of the
    restarts in the journal.
    Why: each crash loses the requests in flight. A service that is up at every look may still be
    down most of the time.
    """
    unit = loaded_service(deployment)
    recent = _recent_restarts(deployment, unit) if unit.restarts > _MAX_RESTARTS else 0
    if recent > _MAX_RESTARTS:
        logs = deployment.paths.command("logs --errors")
        yield Finding(
            f"{recent} restarts in {_WINDOW // 60} minutes",
            "fail",
            f"{logs} shows why; fix that, then {deployment.restart}",
            unit_facts.last_problem(Systemd(deployment.paths.scope), deployment.paths),
            deployment.is_alone,
        )
    yield Finding(f"{unit.restarts} restarts since the last manual start")


def _recent_restarts(deployment: Deployment, unit: Unit) -> int:
    """How often systemd restarted the service within the window.

    All restarts count if the journal holds no entry about them.
    """
    entries = Systemd(deployment.paths.scope).journal(
        unit.name, "--lines=100", f"MESSAGE_ID={_RESTART_MESSAGE}"
    )
    since = (time.time() - _WINDOW) * 1e6
    recent = sum(float(entry.get("__REALTIME_TIMESTAMP", 0)) > since for entry in entries)
    return min(unit.restarts, recent) if entries else unit.restarts


@check(
    "process.memory",
    "The service has memory left",
    f"at most {_NEAR:.0%} of MemoryMax in use",
    fault="The service is near its memory limit",
    live=True,
    requires=("service.active",),
)
def process_memory(deployment: Deployment) -> Iterator[Finding]:
    """The memory of the service's processes is below the limit at which the kernel kills them.

    How: compares the private memory of the processes that serve the port with MemoryMax of the
    unit.
    Why: at the limit the kernel kills a process, and with it every request that it is working on.
    """
    unit = loaded_service(deployment)
    limit = unit.memory_max
    if limit is None:
        raise NotApplicable("the unit has no MemoryMax")
    used = deployment.memory
    if used > _NEAR * limit:
        lowered = [
            path
            for path in map(Path, unit.drop_in_paths)
            if "MemoryMax=" in (files.read(path) or "")
        ]
        steps = [remedies.unset(path, "MemoryMax") for path in lowered]
        steps += [systemctl(deployment, "daemon-reload")] if lowered else [deployment.restart]
        where = f", set in {', '.join(map(str, lowered))}" if lowered else ""
        yield Finding(
            f"{used >> 20} of {limit >> 20} MiB in use{where}", "fail", " && ".join(steps)
        )
    yield Finding(f"{used >> 20} of {limit >> 20} MiB in use")


@check(
    "service.current-release",
    "The service runs the active release",
    "its main process works in that release",
    fault="The service still runs another release than the active one",
    live=True,
    requires=("release.in-force", "service.active"),
)
def service_current_release(deployment: Deployment) -> Iterator[Finding]:
    """The running release is the active one.

    How: compares the working directory of the main process with that of the active release.
    Why: after an installation without a restart, the old release and its defects still run.
    """
    unit = loaded_service(deployment)
    if not unit.main_pid:
        raise Skip("the service does not run: see service.active")
    process = processes.read_process(unit.main_pid)
    if process is None or process.directory is None:
        raise Skip(f"process {unit.main_pid} is not readable: run it with sudo")
    if process.directory != files.identity(deployment.release / "work"):
        yield Finding(
            f"process {unit.main_pid} runs another release than {deployment.release.name}",
            "fail",
            deployment.restart,
        )
    yield Finding(f"process {unit.main_pid} runs {deployment.release.name}")


@check(
    "service.leftover",
    "No interrupted restart or build left anything behind",
    "no sibling unit, no incomplete release",
    fault="An interrupted restart or build left something behind",
)
def service_leftover(deployment: Deployment) -> Iterator[Finding]:
    """No remains of an interrupted restart or installation exist.

    How: looks for the sibling unit below /run and for release directories without release.json.
    Why: a sibling that was left behind serves an older release beside the service.
    """
    for path in store.half_built(deployment.paths):
        yield Finding(f"{path} is incomplete", "warn", f"rm -r {shlex.quote(str(path))}")
    sibling = RUNTIME["system"] / deployment.paths.sibling_unit
    if not deployment.paths.is_private and sibling.exists():
        yield Finding(
            f"{deployment.paths.sibling_unit} exists",
            "warn",
            deployment.paths.command("restart"),
            "a restart was interrupted",
        )
    yield Finding("nothing left behind")
