"""The timer that checks the deployment every minute."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from optictl.checks.engine import Finding, Skip, check
from optictl.deployment import artefacts, render
from optictl.deployment.render import Host
from optictl.facts.deployment import Deployment
from optictl.host import files


@check(
    "timer.active",
    "The deployment is checked every minute, if that was asked for",
    "the timer is installed, enabled and waiting, or is not there and not asked for",
    fault="The timer that checks the deployment is not what the configuration asks for",
    live=True,
    requires=("config.valid",),
    explained_by=("unit.installed",),
)
def timer_active(deployment: Deployment) -> Iterator[Finding]:
    """Faults are found although nobody looks, where `monitoring.timer` asks for that.

    How: the timer's and its service's files against what is rendered, the program that they run, the state of the timer and
    the directory of the metrics. Whether the last rounds were good is for `systemctl --failed` to tell.
    Why: whoever relies on being told is told nothing by a timer that does not run.
    """
    deployment.require_managed()
    paths, wanted = deployment.paths, deployment.config.monitoring
    if paths.is_private:
        raise Skip("systemd has no say in this deployment")
    timer = deployment.units[paths.check_timer.name]
    standing = [
        path
        for path in (paths.check_service, paths.check_timer)
        if files.file_facts(path).kind != "missing"
    ]
    if not wanted.timer:
        for path in standing:
            yield Finding(
                f"{path} is there, and monitoring.timer is off", "fail", deployment.install
            )
        yield Finding("not asked for, and not there")
        return
    words = render.check_command(files.read(paths.check_service) or "")
    # another optictl than this one may have installed it: that one counts as long as it is there
    program = Path(words[0]) if words else Host().program
    for artefact in artefacts.monitoring_files(deployment.config, paths, Host(program=program)):
        text = files.read(artefact.path)
        if text is None:
            yield Finding(f"{artefact.path} is missing", "fail", deployment.install)
        elif text != artefact.text:
            yield Finding(
                f"{artefact.path} differs from what is rendered", "fail", deployment.restore
            )
    if words and not program.is_file():
        yield Finding(
            f"{program}, which the check's unit runs, is gone", "fail", deployment.install
        )
    if standing and timer.unit_file_state != "enabled":
        yield Finding(
            f"{timer.name} is {timer.unit_file_state or 'unknown'}", "fail", deployment.install
        )
    if standing and (not timer.active or timer.sub_state == "elapsed"):
        yield Finding(
            f"{timer.name} is {timer.active_state} ({timer.sub_state})", "fail", deployment.install
        )
    if wanted.textfile and not Path(wanted.textfile).parent.is_dir():
        directory = Path(wanted.textfile).parent
        yield Finding(
            f"there is no {directory} for the metrics",
            "fail",
            f"mkdir -p {shlex.quote(str(directory))}",
        )
    yield Finding(f"{timer.name} is {timer.active_state}")
