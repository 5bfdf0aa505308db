"""start, stop, restart: the deployment under systemd, in orders that keep its socket open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optictl.deployment import render
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.deployment.render import Host
from optictl.errors import NotReady, ProofFailed, ToolError
from optictl.facts.units import last_problem, manager, port_taken, units
from optictl.host import files, processes
from optictl.host.systemd import RUNTIME, Systemd
from optictl.results import Progress


@contextmanager
def explained(config: Config, paths: Paths) -> Iterator[None]:
    """A failure of systemctl in the block becomes an error that says why the service failed.

    Raises:
        OptictlError: systemctl failed.
    """
    try:
        yield
    except ToolError as error:
        systemd = manager(paths)
        problem = port_taken(systemd, paths, config.listen.port) or last_problem(systemd, paths)
        raise error.reworded(
            error.what,
            f"{paths.command('status')}, or journalctl -u {paths.name}",
            problem or error.output,
        ) from None


def stop_seconds(config: Config) -> float:
    """How long a stop of the service may take: its requests in flight finish first."""
    return config.timeouts.drain + render.STOP_GRACE


def start(config: Config, paths: Paths) -> None:
    """Start the sockets and the service; returns when the proxy answers."""
    systemd = manager(paths)
    with explained(config, paths):
        systemd.start(*units(config, paths))
    _begin_count(systemd, paths)


def _begin_count(systemd: Systemd, paths: Paths) -> None:
    """Set NRestarts to 0: systemd keeps the count when a service that waits for its next start
    is started by hand.
    """
    systemd.reset_failed(paths.service_unit)


def stop(config: Config, paths: Paths) -> None:
    """Stop the service for good: the socket first, or the next connection would start it again."""
    with explained(config, paths):
        manager(paths).stop(paths.socket_unit, paths.service_unit, seconds=stop_seconds(config))


def restart(config: Config, paths: Paths, say: Progress) -> None:
    """Restart without a pause: a sibling serves on the same socket while the service drains.

    Raises:
        OptictlError: the sibling did not become ready; nothing was stopped.
    """
    systemd = manager(paths)
    if not systemd.show(paths.service_unit).active:
        start(config, paths)
        return
    if paths.scope == "system":  # a user's manager gives no second unit its directory in /run
        _start_sibling(config, paths, files.read(paths.service) or "", say)
    replace_service(config, paths, say)


def start_sibling(config: Config, paths: Paths, host: Host, say: Progress) -> None:
    """Start a second process on the same socket, of the release that `host` names. A failed start
    leaves nothing behind.

    Raises:
        OptictlError: it did not become ready; the service was not touched.
    """
    _start_sibling(config, paths, render.unit(config, paths, host), say)


def _start_sibling(config: Config, paths: Paths, service: str, say: Progress) -> None:
    """The same, from the text of the service's unit."""
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


def replace_service(config: Config, paths: Paths, say: Progress) -> None:
    """Drain the service and start it again; then stop the sibling, if one serves.

    Raises:
        OptictlError: the service is not a new process of the active release. A sibling then keeps
            serving.
    """
    systemd = manager(paths)
    before = systemd.show(paths.service_unit).main_pid
    say(f"draining the service, at most {config.timeouts.drain} s")
    with explained(config, paths):
        systemd.restart(paths.service_unit, seconds=stop_seconds(config))
    _begin_count(systemd, paths)
    now = systemd.show(paths.service_unit).main_pid
    process = processes.read_process(now) if now != before else None
    if process is None or (
        process.directory is not None
        and process.directory != files.identity(paths.current / "work")
    ):
        raise ProofFailed(
            "the restarted service is not a new process of the active release",
            remedy=paths.command("check --only service"),
        )
    if paths.scope == "system":
        remove_sibling(config, paths)


def remove_sibling(config: Config, paths: Paths) -> None:
    """Drain and stop the sibling, where there is one, and remove its unit."""
    systemd = manager(paths)
    if systemd.show(paths.sibling_unit).loaded:
        systemd.stop(paths.sibling_unit, seconds=stop_seconds(config))
    files.remove(RUNTIME["system"] / paths.sibling_unit)
    files.remove(_bridged_socket(paths).parent)
    systemd.reload()
    systemd.reset_failed(paths.sibling_unit)


def hand_over(config: Config, paths: Paths, release: Path, port: int, say: Progress) -> None:
    """Replace a service that holds the port itself; clients do not wait for the new one to start.

    A trial of the new release serves on `port` already. The socket is opened as soon as the old
    process has ended, and a bridge hands its connections to the trial until the service itself is
    ready. Connections that are open stay.

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
        with explained(config, paths):
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
    if known:
        systemd.stop(*(unit.name for unit in known), seconds=stop_seconds(config))
    if enabled := [unit.name for unit in known if unit.unit_file_state.startswith("enabled")]:
        systemd.disable(*enabled)
    if paths.scope == "system":
        files.remove(RUNTIME["system"] / paths.sibling_unit)
        files.remove(_bridged_socket(paths).parent)
    systemd.reset_failed(*names)


def stop_deployment(config: Config, paths: Paths) -> None:
    """Stop every unit of a deployment that is to be removed: the timer, the service, the relay,
    a sibling.
    """
    stop_timer(paths)
    stop(config, paths)
    systemd = manager(paths)
    others = (paths.upstream_socket.name, paths.upstream_service.name, paths.sibling_unit)
    if loaded := [unit for unit in others if systemd.show(unit).loaded]:
        systemd.stop(*loaded)
    files.remove(RUNTIME["system"] / paths.sibling_unit)


def disable_deployment(config: Config, paths: Paths) -> None:
    """Keep every unit of a deployment that is to be removed from starting at boot."""
    systemd, timer = manager(paths), paths.check_timer.name
    systemd.disable(*units(config, paths), *([timer] if systemd.show(timer).loaded else []))


def stop_timer(paths: Paths) -> None:
    """Stop the timer and a check that it began, and remove their state from systemd and from
    /run.
    """
    systemd = manager(paths)
    names = paths.check_timer.name, paths.check_service.name
    if known := [unit.name for unit in systemd.show_all(*names) if unit.loaded]:
        systemd.stop(*known)
        systemd.clean(*known)
        systemd.reset_failed(*known)


def remove_timer(paths: Paths) -> None:
    """Stop the timer of the check and keep it from starting at boot."""
    stop_timer(paths)
    systemd = manager(paths)
    if systemd.show(paths.check_timer.name).loaded:
        systemd.disable(paths.check_timer.name)
