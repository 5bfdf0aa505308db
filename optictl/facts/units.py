"""Facts about a deployment's systemd units: their state, their processes, why they failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optictl.deployment import render
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.deployment.render import Host
from optictl.errors import NoSystemd
from optictl.host import files, processes, program
from optictl.host.systemd import RUNTIME, Systemd, Unit, socket_proxyd
from optictl.releases import release_record, store
from optictl.releases.release_record import ReleaseRecord


@dataclass(frozen=True)
class Running:
    """The state of a deployment's units.

    `to_enable`: the units to enable, the service last. `units`: every unit of the deployment.
    `stale`: why the running process must be replaced even if no file changes, or "".
    `sibling`: whether an interrupted restart left the sibling unit behind.
    """

    to_enable: Sequence[str]
    units: Mapping[str, Unit]
    stale: str = ""
    sibling: bool = False

    @property
    def runs(self) -> bool:
        """Whether the service runs on its socket."""
        return all(self.units[name].active for name in self.to_enable[-2:])


def manager(paths: Paths) -> Systemd:
    """The systemd that manages this deployment.

    Raises:
        OptictlError: systemd does not run here, or does not manage the deployment.
    """
    systemd = Systemd(paths.scope)
    if paths.is_private:
        raise NoSystemd(
            "systemd does not manage a deployment below --root", remedy=paths.command("run")
        )
    if not systemd.available():
        raise NoSystemd("systemd is not running here", remedy=paths.command("run"))
    return systemd


def explaining_command(paths: Paths) -> str:
    """The command that shows why the service failed; only systemd keeps its log."""
    managed = not paths.is_private and Systemd(paths.scope).available()
    return paths.command("logs --errors" if managed else "check")


def host(paths: Paths, release: str | None = None) -> Host:
    """The facts of this machine that the units depend on.

    `release`: the release that the units start; by default the active one.
    """
    current = store.active_release(paths)
    name = release or current
    record = release_record.read(paths.releases / name) if name else None
    active_record = None
    if record is None and current:
        active_record = release_record.read(paths.releases / current)
    return host_of(record, active_record)


def host_of(record: ReleaseRecord | None, active_record: ReleaseRecord | None) -> Host:
    """The same for the release of this record, None where the release is not built yet."""
    # a release that is not built yet will probably use the interpreter of the active one
    built = record or active_record
    prefix = Path(built.python.path if built else "/usr/bin/python3").parent.parent
    seen_anyway = prefix.is_relative_to("/usr")
    return Host(
        Systemd("system").version() or Host().systemd,
        None if seen_anyway else prefix,
        flags=tuple(store.flags_of(record)),
        program=program.own_program() or Host().program,
        socket_proxyd=socket_proxyd() or Host().socket_proxyd,
    )


def units(config: Config, paths: Paths) -> list[str]:
    """The units to enable: the sockets first, the service last."""
    relay = [paths.upstream_socket.name] if render.is_sealed(config, paths) else []
    return [*relay, paths.socket_unit, paths.service_unit]


#: Exit codes of a service that systemd could not start (systemd.exec(5)).
_START_FAILURES = {
    200: "its working directory cannot be entered (200/CHDIR): is the release complete?",
    203: "its interpreter cannot be executed (203/EXEC)",
    226: "a directory that its unit names is missing (226/NAMESPACE)",
    243: "proxy_key or env is missing or cannot be read (243/CREDENTIALS)",
}


def last_problem(systemd: Systemd, paths: Paths, unit: str = "") -> str:
    """Why the last run of the service (or of another `unit`) failed.

    The message of the service if it logged one, else the message of systemd.
    """
    unit = unit or paths.service_unit
    shown = systemd.show(unit)
    if unit == paths.service_unit and systemd.show(paths.socket_unit).active_state == "failed":
        # the service did not run since the socket failed: its last failure is an older one
        return last_problem(systemd, paths, paths.socket_unit)
    if not shown.main_pid and shown.exec_main_status in _START_FAILURES:
        return f"{unit}: {_START_FAILURES[shown.exec_main_status]}"
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
    """The problem, if systemd cannot open the socket because another program has the port.

    Else "".
    """
    failed = systemd.show(paths.socket_unit).active_state == "failed"
    taken = failed and any(listener.port == port for listener in processes.listeners())
    return f"another program listens on port {port}: ss -ltnp shows which" if taken else ""


def read_units(paths: Paths) -> dict[str, Unit] | None:
    """This deployment's units, or None if systemd does not manage it."""
    if paths.is_private:
        return None
    systemd = Systemd(paths.scope)
    if not systemd.available():
        return None
    return {unit.name: unit for unit in systemd.show_all(*paths.unit_names)}


def drop_ins(paths: Paths, unit: str, read: Sequence[str]) -> list[Path]:
    """The drop-ins of a unit: those that systemd has `read` (DropInPaths), and those on disk."""
    places = (paths.units, Path("/etc/systemd") / paths.scope, Path("/run/systemd") / paths.scope)
    waiting = [path for place in places for path in sorted((place / f"{unit}.d").glob("*.conf"))]
    return list(dict.fromkeys([*map(Path, read), *waiting]))


def running(config: Config, paths: Paths) -> Running | None:
    """What a plan needs to know about the running units; None if systemd does not manage them."""
    known_units = read_units(paths)
    if known_units is None:
        return None
    sibling = RUNTIME["system"] / paths.sibling_unit
    left_over = paths.scope == "system" and (
        files.file_facts(sibling).kind != "missing" or known_units[paths.sibling_unit].active
    )
    return Running(
        units(config, paths),
        known_units,
        _stale(config, paths, known_units[paths.service_unit].main_pid),
        left_over,
    )


def directory_of(pid: int) -> tuple[int, int] | None:
    """The identity of a process's working directory, or None if it is gone or unreadable.

    Every release has its own working directory, so this tells which release a process runs.
    """
    process = processes.read_process(pid) if pid else None
    return process.directory if process is not None else None


def _stale(config: Config, paths: Paths, pid: int) -> str:
    """Why this process does not match the current files, or ""."""
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
