"""start, stop, restart: the deployment under systemd, in orders that keep its socket open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from optictl.deployment import render
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import NotReady, OptictlError, ToolError
from optictl.facts.units import last_problem, manager, port_taken, units
from optictl.host import files, processes
from optictl.host.systemd import RUNTIME, Systemd
from optictl.operations.plan import Change


def _explained(error: ToolError, systemd: Systemd, paths: Paths, port: int) -> OptictlError:
    problem = port_taken(systemd, paths, port) or last_problem(systemd, paths)
    return error.reworded(
        error.what,
        f"{paths.command('status')}, or journalctl -u {paths.name}",
        problem or error.output,
    )


def start(config: Config, paths: Paths) -> None:
    """Start the sockets and the service; returns when the proxy answers."""
    systemd = manager(paths)
    try:
        systemd.start(*units(config, paths))
    except ToolError as error:
        raise _explained(error, systemd, paths, config.listen.port) from None
    _begin_count(systemd, paths)


def _begin_count(systemd: Systemd, paths: Paths) -> None:
    """Set NRestarts to 0: systemd keeps the count when a service that waits for its next start is started by hand."""
    systemd.reset_failed(paths.service_unit)


def stop(config: Config, paths: Paths) -> None:
    """Stop the service for good: the socket first, or the next connection would start it again."""
    systemd = manager(paths)
    try:
        systemd.stop(
            paths.socket_unit, paths.service_unit, seconds=config.timeouts.drain + render.STOP_GRACE
        )
    except ToolError as error:
        raise _explained(error, systemd, paths, config.listen.port) from None


def restart(config: Config, paths: Paths, say: Callable[[str], None]) -> None:
    """Restart without anybody waiting: a sibling serves on the same socket while the service drains.

    Raises:
        OptictlError: the sibling did not become ready; nothing was stopped.
    """
    systemd = manager(paths)
    if not systemd.show(paths.service_unit).active:
        start(config, paths)
        return
    if paths.scope == "system":  # a user's manager gives no second unit its directory in /run
        start_sibling(config, paths, files.read(paths.service) or "", say)
    replace_service(config, paths, say)


def start_sibling(config: Config, paths: Paths, service: str, say: Callable[[str], None]) -> None:
    """A second process on the same socket, of the unit whose text is `service`. It is gone again if it does not become ready.

    Raises:
        OptictlError: it did not become ready; the service was not touched.
    """
    systemd = manager(paths)
    files.write(RUNTIME["system"] / paths.sibling_unit, render.sibling(service), 0o644)
    ready = False
    try:
        systemd.reload()
        say("starting a sibling on the same socket")
        systemd.restart(paths.sibling_unit)  # one that was left over may run something else
        ready = True
    except ToolError as error:
        problem = last_problem(systemd, paths, paths.sibling_unit)
        raise NotReady(
            "the sibling did not become ready; the service was not touched",
            remedy=paths.command("check"),
            detail=problem or error.output,
        ) from None
    finally:
        if not ready:
            remove_sibling(config, paths)


def replace_service(config: Config, paths: Paths, say: Callable[[str], None]) -> None:
    """Drain the service and start it anew; then end the sibling, if one serves.

    Raises:
        OptictlError: no new process of the release in force came of it. A sibling then goes on serving.
    """
    systemd = manager(paths)
    before = systemd.show(paths.service_unit).main_pid
    say(f"draining the service, at most {config.timeouts.drain} s")
    try:
        systemd.restart(paths.service_unit, seconds=config.timeouts.drain + render.STOP_GRACE)
    except ToolError as error:
        raise _explained(error, systemd, paths, config.listen.port) from None
    _begin_count(systemd, paths)
    now = systemd.show(paths.service_unit).main_pid
    process = processes.read_process(now) if now != before else None
    if process is None or (
        process.directory is not None
        and process.directory != files.identity(paths.current / "work")
    ):
        raise OptictlError(
            "the restarted service is not a new process of the release in force",
            remedy=paths.command("check --only service"),
        )
    if paths.scope == "system":
        remove_sibling(config, paths)


def remove_sibling(config: Config, paths: Paths) -> None:
    """Drain and end the sibling, where there is one."""
    systemd = manager(paths)
    if systemd.show(paths.sibling_unit).loaded:
        systemd.stop(paths.sibling_unit, seconds=config.timeouts.drain + render.STOP_GRACE)
    files.remove(RUNTIME["system"] / paths.sibling_unit)
    files.remove(_bridged_socket(paths).parent)
    systemd.reload()
    systemd.reset_failed(paths.sibling_unit)


def hand_over(
    config: Config, paths: Paths, release: Path, port: int, say: Callable[[str], None]
) -> None:
    """Replace a service that holds the port by itself; clients do not wait for the new one to start.

    A trial of the new release serves on `port` already. The socket is opened the moment the old process is gone, and a
    bridge hands its connections to the trial until the service itself is ready. Connections that are open stay.

    Raises:
        OptictlError: the new service did not become ready.
    """
    systemd = manager(paths)
    files.write(
        RUNTIME["system"] / paths.sibling_unit, render.bridge(config, paths, release, port), 0o644
    )
    # else the first connection would start the service, of which systemd still knows the old unit
    files.make_directory(_bridged_socket(paths).parent)
    files.write(_bridged_socket(paths), f"[Socket]\nService={paths.sibling_unit}\n", 0o644)
    try:
        say("ending the old process; the trial serves until the new one is ready")
        # no reload before: it would put the new unit's packet filter around the old process
        systemd.stop(paths.service_unit)
        systemd.start(paths.socket_unit, paths.sibling_unit)
        systemd.reload()
        systemd.reset_failed(paths.service_unit)
        systemd.start(*units(config, paths))
        files.remove(_bridged_socket(paths).parent)
        systemd.reload()
        # it takes no connection any more; those that are open end with the trial, which drains
        systemd.stop_without_waiting(paths.sibling_unit)
    except ToolError as error:
        raise _explained(error, systemd, paths, config.listen.port) from None
    finally:
        files.remove(_bridged_socket(paths).parent)


def _bridged_socket(paths: Paths) -> Path:
    """The drop-in with which a socket starts the bridge in place of the service."""
    return RUNTIME["system"] / f"{paths.socket_unit}.d/bridge.conf"


def remove_everything(config: Config, paths: Paths) -> None:
    """Stop and disable every unit of the deployment, whatever state each is in."""
    systemd = manager(paths)
    relay = (paths.upstream_socket.name, paths.upstream_service.name)
    watch = (paths.check_timer.name, paths.check_service.name)
    names = (paths.socket_unit, paths.sibling_unit, paths.service_unit, *relay, *watch)
    known = [unit for unit in systemd.show_all(*names) if unit.loaded]
    seconds = config.timeouts.drain + render.STOP_GRACE
    if known:
        systemd.stop(*(unit.name for unit in known), seconds=seconds)
    if enabled := [unit.name for unit in known if unit.unit_file_state.startswith("enabled")]:
        systemd.disable(*enabled)
    if paths.scope == "system":
        files.remove(RUNTIME["system"] / paths.sibling_unit)
        files.remove(_bridged_socket(paths).parent)
    systemd.reset_failed(*names)


def apply_change(change: Change, config: Config, paths: Paths, say: Callable[[str], None]) -> None:
    """One step of an installation or removal that systemd takes."""
    systemd = manager(paths)
    drain = config.timeouts.drain + render.STOP_GRACE
    try:
        if change.action == "reload":
            systemd.reload()
        elif change.action == "enable":
            systemd.enable(*change.target.split())
        elif change.action == "disable" and change.target == paths.name:
            timer = paths.check_timer.name
            systemd.disable(*units(config, paths), *([timer] if systemd.show(timer).loaded else []))
        elif change.action == "disable":
            systemd.disable(change.target)
        elif change.action == "start" and change.target == paths.service_unit:
            systemd.reset_failed(paths.service_unit)
            start(config, paths)
        elif change.action == "start":
            systemd.start(change.target)
        elif change.action == "restart" and change.target == paths.socket_unit:
            systemd.restart(paths.socket_unit, paths.service_unit, seconds=drain)
        elif change.action == "restart" and change.target == paths.service_unit:
            replace_service(config, paths, say)
        elif change.action == "restart":
            systemd.restart(change.target)
        elif change.action == "stop" and change.target == paths.sibling_unit:
            remove_sibling(config, paths)
        elif change.action == "stop" and change.target == paths.name:
            stop_timer(paths)
            stop(config, paths)
            relay = (paths.upstream_socket.name, paths.upstream_service.name)
            if others := [
                unit for unit in (*relay, paths.sibling_unit) if systemd.show(unit).loaded
            ]:
                systemd.stop(*others)
            files.remove(RUNTIME["system"] / paths.sibling_unit)
        elif change.action == "stop" and change.target in (
            paths.check_timer.name,
            paths.check_service.name,
        ):
            stop_timer(paths)
        elif change.action == "stop":
            systemd.stop(change.target, seconds=drain)
    except ToolError as error:
        raise _explained(error, systemd, paths, config.listen.port) from None


def stop_timer(paths: Paths) -> None:
    """Stop the timer and a check that it began; nothing of them is left in systemd's memory or in /run."""
    systemd = manager(paths)
    names = paths.check_timer.name, paths.check_service.name
    if known := [unit.name for unit in systemd.show_all(*names) if unit.loaded]:
        systemd.stop(*known)
        systemd.clean(*known)
        systemd.reset_failed(*known)


def remove_timer(paths: Paths) -> None:
    """The timer is stopped and will not start at boot."""
    stop_timer(paths)
    systemd = manager(paths)
    if systemd.show(paths.check_timer.name).loaded:
        systemd.disable(paths.check_timer.name)
