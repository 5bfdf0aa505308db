"""start, stop, restart: the deployment under systemd, in orders that keep its socket open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from optictl import releases, render
from optictl.config import Config
from optictl.errors import OptictlError
from optictl.host import files, processes
from optictl.host.systemd import RUNTIME, Systemd, Unit
from optictl.host.uv import ToolError
from optictl.paths import NAME, SIBLING, UPSTREAM, Paths
from optictl.plan import Change
from optictl.render import Host

SERVICE, SOCKET = f"{NAME}.service", f"{NAME}.socket"
_SIBLING = f"{SIBLING}.service"


def manager(paths: Paths) -> Systemd:
    """systemd for this deployment.

    Raises:
        OptictlError: it does not run here, or the deployment is not one that it knows.
    """
    systemd = Systemd(paths.scope)
    if paths.is_private:
        raise OptictlError("a deployment below --root is not systemd's", remedy=paths.command("run"))
    if not systemd.available():
        raise OptictlError("systemd does not run here", remedy=paths.command("run"))
    return systemd


def host(paths: Paths, release: Path | None = None) -> Host:
    """The facts of this machine that its units depend on; `release` is the directory that they start."""
    current = releases.in_force(paths)
    directory = release or (paths.releases / current if current else None)
    record = releases.record(directory) if directory else None
    python = Path((record or {}).get("python", {}).get("path", "/usr/bin/python3"))
    prefix = python.parent.parent
    seen_anyway = prefix.is_relative_to("/usr")
    return Host(Systemd("system").version() or Host().systemd, None if seen_anyway else prefix)


def units(config: Config, paths: Paths) -> list[str]:
    """The units to enable: the sockets first."""
    relay = [f"{UPSTREAM}.socket"] if render.is_sealed(config, paths) else []
    return [*relay, SOCKET, SERVICE]


def _explained(error: ToolError, systemd: Systemd, port: int) -> OptictlError:
    problem = port_taken(systemd, port) or last_problem(systemd)
    return OptictlError(
        f"{error.what} failed", remedy="optictl status, or journalctl -u optillm-proxy", detail=problem or error.output
    )


#: Exit codes that systemd gives a service which it could not even start (systemd.exec(5)).
_STEPS = {
    "200": "its working directory cannot be entered (200/CHDIR): is the release whole?",
    "203": "its interpreter cannot be executed (203/EXEC)",
    "226": "a directory that its unit names is missing (226/NAMESPACE)",
    "243": "proxy_key or env is missing or cannot be read (243/CREDENTIALS)",
}


def last_problem(systemd: Systemd, unit: str = SERVICE) -> str:
    """Why this unit's last run failed: its own words if it had any, else systemd's."""
    seen = systemd.show(unit)
    if unit == SERVICE and systemd.show(SOCKET).active_state == "failed":
        # the service's last failure was another one, in an earlier life
        return last_problem(systemd, SOCKET)
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


def port_taken(systemd: Systemd, port: int) -> str:
    """Words for a socket that systemd cannot have because another program does, else ""."""
    taken = systemd.show(SOCKET).active_state == "failed" and any(one.port == port for one in processes.listeners())
    return f"another program listens on port {port}: ss -ltnp shows which" if taken else ""


def start(config: Config, paths: Paths) -> None:
    """Start the sockets and the service; returns when the proxy answers."""
    systemd = manager(paths)
    try:
        systemd.start(*units(config, paths))
    except ToolError as error:
        raise _explained(error, systemd, config.listen.port) from None


def stop(config: Config, paths: Paths) -> None:
    """Stop the service for good: the socket first, or the next connection would start it again."""
    systemd = manager(paths)
    try:
        systemd.stop(SOCKET, SERVICE, seconds=config.timeouts.drain + render.STOP_GRACE)
    except ToolError as error:
        raise _explained(error, systemd, config.listen.port) from None


def restart(config: Config, paths: Paths, say: Callable[[str], None]) -> None:
    """Restart without anybody waiting: a sibling serves on the same socket while the service drains.

    Raises:
        OptictlError: the sibling did not become ready; nothing was stopped.
    """
    systemd = manager(paths)
    drain = config.timeouts.drain + render.STOP_GRACE
    if not systemd.show(SERVICE).active:
        start(config, paths)
        return
    if paths.scope != "system":  # a user's manager gives no second unit its directory in /run
        systemd.restart(SERVICE, seconds=drain)
        return
    place = RUNTIME["system"] / _SIBLING
    files.write(place, render.unit(config, paths, host(paths), name=SIBLING), 0o644)
    try:
        systemd.reload()
        say("starting a sibling on the same socket")
        try:
            systemd.start(_SIBLING)
        except ToolError as error:
            problem = last_problem(systemd, _SIBLING)
            raise OptictlError(
                "the sibling did not become ready; the service was not touched",
                remedy="optictl check",
                detail=problem or error.output,
            ) from None
        say(f"draining the service, at most {config.timeouts.drain} s; the sibling serves meanwhile")
        systemd.restart(SERVICE, seconds=drain)
        say("the service is ready; draining the sibling")
    except ToolError as error:
        raise _explained(error, systemd, config.listen.port) from None
    finally:
        remove_sibling(systemd, drain)


def remove_sibling(systemd: Systemd, drain: float) -> None:
    """End the sibling, if the service itself serves; else it stays, and `check` names it."""
    if not systemd.show(SERVICE).active:
        return
    systemd.stop(_SIBLING, seconds=drain)
    files.remove(RUNTIME["system"] / _SIBLING)
    systemd.reload()
    systemd.reset_failed(_SIBLING)


def apply_change(change: Change, config: Config, paths: Paths, say: Callable[[str], None]) -> None:
    """One step of an installation or removal that systemd takes."""
    systemd = manager(paths)
    try:
        if change.action == "reload":
            systemd.reload()
        elif change.action == "enable":
            systemd.enable(*units(config, paths))
        elif change.action == "disable":
            systemd.disable(*units(config, paths))
        elif change.action == "start":
            systemd.reset_failed(SERVICE)
            start(config, paths)
        elif change.action == "restart" and change.target == SOCKET:
            systemd.restart(SOCKET, SERVICE, seconds=config.timeouts.drain + render.STOP_GRACE)
        elif change.action == "restart":
            restart(config, paths, say)
        elif change.action == "stop":
            stop(config, paths)
            others = [unit for unit in (f"{UPSTREAM}.socket", f"{UPSTREAM}.service", _SIBLING) if systemd.show(unit).loaded]
            if others:
                systemd.stop(*others)
    except ToolError as error:
        raise _explained(error, systemd, config.listen.port) from None


def facts(paths: Paths) -> dict[str, Unit] | None:
    """What systemd knows of this deployment's units, or None where it has no say."""
    if paths.is_private:
        return None
    systemd = Systemd(paths.scope)
    if not systemd.available():
        return None
    return {name: systemd.show(name) for name in (SERVICE, SOCKET, f"{UPSTREAM}.socket")}
