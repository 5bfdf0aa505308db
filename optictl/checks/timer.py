"""The systemd timer that runs the checks every minute."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from optictl.checks.engine import Finding, check
from optictl.deployment import artefacts, render
from optictl.deployment.render import Host
from optictl.errors import NotApplicable
from optictl.facts.deployment import Deployment
from optictl.host import files


@check(
    "timer.active",
    "The check timer runs, if it is configured",
    "timer installed, enabled and waiting; or monitoring.timer is off and there is no timer",
    fault="The check timer does not match the configuration",
    live=True,
    requires=("config.valid",),
    explained_by=("unit.installed",),
)
def timer_active(deployment: Deployment) -> Iterator[Finding]:
    """If `monitoring.timer` is on, systemd runs the checks every minute.

    How: compares the unit files of the timer and its service with the rendered ones, and looks at
    the program that they run, the state of the timer, and the directory of the metrics. It does not
    judge the last runs: see `systemctl --failed`.
    Why: a timer that does not run reports no fault, and silence looks like health.
    """
    deployment.require_managed()
    paths, monitoring = deployment.paths, deployment.config.monitoring
    if paths.is_private:
        raise NotApplicable("this deployment is not managed by systemd")
    timer = deployment.units[paths.check_timer.name]
    installed_units = [
        path
        for path in (paths.check_service, paths.check_timer)
        if files.file_facts(path).kind != "missing"
    ]
    if not monitoring.timer:
        for path in installed_units:
            yield Finding(f"{path} exists, but monitoring.timer is off", "fail", deployment.install)
        yield Finding("monitoring.timer is off, and there is no timer")
        return
    yield from _unit_files(deployment)
    if installed_units and timer.unit_file_state != "enabled":
        yield Finding(
            f"{timer.name} is {timer.unit_file_state or 'unknown'}", "fail", deployment.install
        )
    if installed_units and (not timer.active or timer.sub_state == "elapsed"):
        yield Finding(
            f"{timer.name} is {timer.active_state} ({timer.sub_state})", "fail", deployment.install
        )
    if monitoring.textfile and not (directory := Path(monitoring.textfile).parent).is_dir():
        yield Finding(
            f"the directory of monitoring.textfile, {directory}, does not exist",
            "fail",
            f"mkdir -p {shlex.quote(str(directory))}",
        )
    yield Finding(f"{timer.name} is {timer.active_state}")


def _unit_files(deployment: Deployment) -> Iterator[Finding]:
    """The units of the timer and the check differ from the rendered ones, or run no program."""
    paths = deployment.paths
    command = render.check_command(files.read(paths.check_service) or "")
    # another installation of optictl may have written the unit: its program is fine while it exists
    program = Path(command[0]) if command else Host().program
    for artefact in artefacts.monitoring_files(deployment.config, paths, Host(program=program)):
        text = files.read(artefact.path)
        if text is None:
            yield Finding(f"{artefact.path} is missing", "fail", deployment.install)
        elif text != artefact.text:
            yield Finding(
                f"{artefact.path} differs from the rendered file", "fail", deployment.restore
            )
    if command and not program.is_file():
        yield Finding(
            f"{program} does not exist; {paths.check_service} runs it", "fail", deployment.install
        )
