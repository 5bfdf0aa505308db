"""What systemd knows of a deployment: its units, its processes, why they failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optictl.deployment import render
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.deployment.render import Host
from optictl.errors import OptictlError
from optictl.host import files, processes, program
from optictl.host.systemd import RUNTIME, Systemd, Unit, socket_proxyd
from optictl.releases import integrity, store


@dataclass(frozen=True)
class Running:
    """What systemd says. `wanted` are the units to enable, the service last; `found` what it knows of all of this deployment's.

    `stale`: why the process that runs has to be replaced although no file changes, or "".
    `sibling`: one was left over.
    """

    wanted: Sequence[str]
    found: Mapping[str, Unit]
    stale: str = ""
    sibling: bool = False

    @property
    def runs(self) -> bool:
        """Whether the service runs on its socket."""
        return all(self.found[name].active for name in self.wanted[-2:])


def manager(paths: Paths) -> Systemd:
    """systemd for this deployment.

    Raises:
        OptictlError: it does not run here, or the deployment is not one that it knows.
    """
    systemd = Systemd(paths.scope)
    if paths.is_private:
        raise OptictlError(
            "a deployment below --root is not systemd's", remedy=paths.command("run")
        )
    if not systemd.available():
        raise OptictlError("systemd does not run here", remedy=paths.command("run"))
    return systemd


def host(paths: Paths, release: str | None = None) -> Host:
    """The facts of this machine that its units depend on; `release` is the one that they start, else the one in force."""
    current = store.active_release(paths)
    name = release or current
    record = (integrity.record(paths.releases / name) if name else None) or {}
    # one that is still to be built will most likely have the interpreter of the one in force
    python = Path(
        (record or (integrity.record(paths.releases / current) if current else None) or {})
        .get("python", {})
        .get("path", "/usr/bin/python3")
    )
    prefix = python.parent.parent
    seen_anyway = prefix.is_relative_to("/usr")
    flags = tuple(record.get("flags", ()))
    return Host(
        Systemd("system").version() or Host().systemd,
        None if seen_anyway else prefix,
        flags=flags,
        program=program.own_program() or Host().program,
        socket_proxyd=socket_proxyd() or Host().socket_proxyd,
    )


def units(config: Config, paths: Paths) -> list[str]:
    """The units to enable: the sockets first, the service last."""
    relay = [paths.upstream_socket.name] if render.is_sealed(config, paths) else []
    return [*relay, paths.socket_unit, paths.service_unit]


#: Exit codes that systemd gives a service which it could not even start (systemd.exec(5)).
_STEPS = {
    200: "its working directory cannot be entered (200/CHDIR): is the release whole?",
    203: "its interpreter cannot be executed (203/EXEC)",
    226: "a directory that its unit names is missing (226/NAMESPACE)",
    243: "proxy_key or env is missing or cannot be read (243/CREDENTIALS)",
}


def last_problem(systemd: Systemd, paths: Paths, unit: str = "") -> str:
    """Why the last run of the service (or of another of its units) failed: its own words if it had any, else systemd's."""
    unit = unit or paths.service_unit
    seen = systemd.show(unit)
    if unit == paths.service_unit and systemd.show(paths.socket_unit).active_state == "failed":
        # the service's last failure was another one, in an earlier life
        return last_problem(systemd, paths, paths.socket_unit)
    if not seen.main_pid and seen.exec_main_status in _STEPS:
        return f"{unit}: {_STEPS[seen.exec_main_status]}"
    nearest, run = "", ""
    for entry in reversed(systemd.journal(unit, "--lines=60")):
        text = entry.get("MESSAGE")
        of = entry.get("INVOCATION_ID") or entry.get("_SYSTEMD_INVOCATION_ID") or ""
        if not isinstance(text, str):
            continue
        if nearest and of != run:
            break
        if "refused to start" in text or '"crashed"' in text:
            return text
        if "Failed" in text or "Main process exited" in text or "Watchdog timeout" in text:
            nearest, run = text, of
    return nearest


def port_taken(systemd: Systemd, paths: Paths, port: int) -> str:
    """Words for a socket that systemd cannot have because another program does, else ""."""
    failed = systemd.show(paths.socket_unit).active_state == "failed"
    taken = failed and any(one.port == port for one in processes.listeners())
    return f"another program listens on port {port}: ss -ltnp shows which" if taken else ""


def facts(paths: Paths) -> dict[str, Unit] | None:
    """What systemd knows of this deployment's units, or None where it has no say."""
    if paths.is_private:
        return None
    systemd = Systemd(paths.scope)
    if not systemd.available():
        return None
    names = (
        paths.service_unit,
        paths.socket_unit,
        paths.upstream_socket.name,
        paths.upstream_service.name,
        paths.sibling_unit,
        paths.check_service.name,
        paths.check_timer.name,
    )
    return {unit.name: unit for unit in systemd.show_all(*names)}


def drop_ins(paths: Paths, unit: str, read: Sequence[str]) -> list[Path]:
    """The drop-ins of a unit: those that systemd has `read` (DropInPaths), and those that it will read at its next reload."""
    places = (paths.units, Path("/etc/systemd") / paths.scope, Path("/run/systemd") / paths.scope)
    waiting = [path for place in places for path in sorted((place / f"{unit}.d").glob("*.conf"))]
    return list(dict.fromkeys([*map(Path, read), *waiting]))


def running(config: Config, paths: Paths) -> Running | None:
    """The facts that a plan needs about what runs now, or None where systemd has no say."""
    found = facts(paths)
    if found is None:
        return None
    sibling = RUNTIME["system"] / paths.sibling_unit
    left_over = paths.scope == "system" and (
        files.file_facts(sibling).kind != "missing" or found[paths.sibling_unit].active
    )
    return Running(
        units(config, paths),
        found,
        _stale(config, paths, found[paths.service_unit].main_pid),
        left_over,
    )


def directory_of(pid: int) -> tuple[int, int] | None:
    """The identity of a process's working directory: a release's own. None when it is gone or may not be seen."""
    process = processes.read_process(pid) if pid else None
    return process.directory if process is not None else None


def _stale(config: Config, paths: Paths, pid: int) -> str:
    """Why this process is not what a start would make of the files that are there now, or ""."""
    process = processes.read_process(pid) if pid else None
    if process is None:
        return ""
    if process.directory is not None and process.directory != files.identity(
        paths.current / "work"
    ):
        return f"process {pid} runs another release"
    read = (
        paths.env,
        paths.proxy_key,
        paths.service,
        render.home(config, paths) / ".optillm" / "proxy_config.yaml",
    )
    since = processes.started_at(pid)
    changed = [str(path) for path in read if files.modified_at(path) > since + 0.1]
    return f"{', '.join(changed)} changed since process {pid} started" if changed else ""
