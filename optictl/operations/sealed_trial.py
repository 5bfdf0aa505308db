"""A release started once as its unit will start it, under names and on a port of a trial.

The trial reads this deployment's key and env file, in the same sandbox, with the drop-ins that will
apply. What the guard or systemd would refuse is refused here, before the running service is
touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from optictl.deployment import render
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.deployment.render import Host
from optictl.errors import NotReady, ToolError
from optictl.facts.units import last_problem, manager
from optictl.host import files, network
from optictl.host.systemd import Systemd, runtime_units
from optictl.proof import trial
from optictl.results import Progress


def texts(config: Config, paths: Paths, host: Host) -> dict[str, str]:
    """unit name -> text, the service last. `paths` and `config` are the trial's, `host.release`
    is set. Pure.
    """
    units = {paths.socket_unit: render.socket(config, paths)}
    if render.is_sealed(config, paths):
        units[paths.upstream_socket.name] = render.upstream_socket(config, paths)
        units[paths.upstream_service.name] = render.upstream_service(config, paths, host)
    return {**units, paths.service_unit: render.unit(config, paths, host)}


@contextmanager
def running(
    config: Config, paths: Paths, host: Host, drop_ins: Sequence[Path], say: Progress
) -> Iterator[int]:
    """Start the release of `host.release` as a trial; the block gets its port, and it is removed
    afterwards.

    `drop_ins` are those of the real unit that stay.

    Raises:
        OptictlError: systemd objects to a unit, or the release does not start in it.
    """
    port = network.free_port()
    own = config.moved(port, config.upstream.base_url)
    # the same places, but for the HOME, which is not written yet
    home = paths.scratch / "trial-home"
    there = replace(paths, name=paths.trial_name, units=runtime_units(paths.scope), home=home)
    units = texts(own, there, host)
    units[there.service_unit] = render.trial_unit(units[there.service_unit], paths.name)
    systemd = manager(paths)
    say(f"starting {host.release.name if host.release else 'the release'} once, as its unit will")
    try:
        _write(own, there, units, drop_ins)
        systemd.reload()
        _verify(systemd, there, units)
        _start(systemd, there, units)
        _answers(own)
        yield port
    finally:
        end(own, there, systemd)


def _write(
    config: Config, there: Paths, units: Mapping[str, str], drop_ins: Sequence[Path]
) -> None:
    provider = render.home(config, there) / ".optillm/proxy_config.yaml"
    files.make_directory(provider.parent)
    files.write(provider, render.proxy_config(config), 0o644)
    files.make_directory(there.root_directory)
    files.make_directory(there.units)
    for name, text in units.items():
        files.write(there.units / name, text, 0o644)
    for path in drop_ins:
        beside = there.units / f"{there.service_unit}.d"
        files.make_directory(beside)
        files.write(beside / path.name, files.read(path) or "", 0o600)


def _verify(systemd: Systemd, there: Paths, units: Mapping[str, str]) -> None:
    """Raise OptictlError if systemd-analyze reports a problem in these units."""
    said = systemd.verify(*(there.units / name for name in units))
    # it also reports what is wrong with other units of this machine
    names = re.compile("|".join(map(re.escape, units)))
    if objections := [line for line in said.splitlines() if names.search(line)]:
        raise ToolError(
            "systemd objects to the units of this deployment",
            output="\n".join(objections),
            remedy="report it with the output of systemctl --version "
            f"and {there.command('config show')}",
        )


def _start(systemd: Systemd, there: Paths, units: Mapping[str, str]) -> None:
    try:
        systemd.start(*(name for name in units if name != there.upstream_service.name))
    except ToolError as error:
        problem = last_problem(systemd, there)
        raise NotReady(
            "the release does not start as its unit would start it",
            remedy=f"fix what it names; journalctl -u {there.service_unit} has all of it",
            detail=problem or error.output,
        ) from None


def _answers(config: Config) -> None:
    if problem := trial.health_problem(config):
        raise NotReady(f"the release started as its unit would, and /health gave {problem}")


def end(config: Config, there: Paths, systemd: Systemd) -> None:
    """Stop a trial, which drains, and remove what it consists of."""
    relay = (there.upstream_socket.name, there.upstream_service.name)
    names = (there.socket_unit, there.service_unit, *relay)
    seconds = config.timeouts.drain + render.STOP_GRACE
    if known := [unit.name for unit in systemd.show_all(*names) if unit.loaded]:
        systemd.stop(*known, seconds=seconds)
    for name in names:
        files.remove(there.units / name)
    files.remove(there.units / f"{there.service_unit}.d")
    files.remove(there.home)
    systemd.reload()
    systemd.reset_failed(*names)


def leftover(paths: Paths) -> bool:
    """Whether a killed optictl left a trial behind."""
    return (
        files.file_facts(runtime_units(paths.scope) / f"{paths.trial_name}.service").kind
        != "missing"
    )


def remove_leftover(config: Config, paths: Paths) -> None:
    """End the trial that a killed optictl left behind."""
    there = replace(
        paths,
        name=paths.trial_name,
        units=runtime_units(paths.scope),
        home=paths.scratch / "trial-home",
    )
    end(config, there, manager(paths))
