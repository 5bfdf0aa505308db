"""`check --attack`: the walls, tried from inside a copy of the service's unit."""

from __future__ import annotations

import json
import os
from pathlib import Path

from optictl.deployment import render
from optictl.deployment.paths import Paths
from optictl.errors import NotInstalled, OptictlError, ToolError
from optictl.facts import units
from optictl.facts.deployment import Deployment
from optictl.host import files, processes
from optictl.host.systemd import RUNTIME
from optictl.results import Result


def attack_unit(service: str, target: str, name: str) -> str:
    """The service's unit with another program and nothing that supervises. Pure.

    Every wall stays; `target` is where the upstream is (unix:PATH or tcp:HOST:PORT), `name` what its words go by.
    """
    dropped = (
        "Restart",
        "WatchdogSec",
        "TimeoutAbortSec",
        "Type=",
        "NotifyAccess",
        "Sockets=",
        "Requires=",
        "After=",
        "SyslogIdentifier",
    )
    lines, inside = [], False
    for line in service.splitlines():
        if inside:  # the rest of a continued ExecStart=
            inside = line.endswith("\\")
            continue
        if line.startswith("ExecStart="):
            program, guard = line.removeprefix("ExecStart=").removesuffix("\\").split(" -I ")
            lines += [
                "Type=oneshot",
                f"ExecStart={program} -I {guard.strip()}/attack.py {target}",
                f"SyslogIdentifier={name}",
            ]
            inside = line.endswith("\\")
        elif line == "[Install]":
            break
        elif not line.startswith(dropped):
            lines.append(line)
    return "\n".join(lines) + "\n"


def attack(deployment: Deployment) -> list[Result]:
    """Run the attempts inside the sandbox: one `sandbox.*` result each.

    Raises:
        OptictlError: the unit could not be started.
    """
    systemd = units.manager(deployment.paths)
    service = files.read(deployment.paths.service)
    if service is None or deployment.paths.scope != "system":
        raise NotInstalled(
            "there is no sandbox to attack", remedy=deployment.paths.command("install")
        )
    if render.is_sealed(deployment.config, deployment.paths):
        target = f"unix:/run/{deployment.paths.upstream_name}/socket"
    else:
        target = f"tcp:{render.upstream_address(deployment.config)}"
    # a name of its own: systemd forgets a finished unit, the journal finds it by name alone
    name = f"{deployment.paths.name}-attack"
    unit = f"{name}-{os.getpid()}.service"
    place = RUNTIME["system"] / unit
    files.write(place, attack_unit(service, target, name), 0o644)
    try:
        systemd.reload()
        said = ""
        try:
            systemd.start(unit)
        except ToolError as error:
            said = error.output  # it ends with 1 when a wall is down
        entries = systemd.journal(unit)
    finally:
        files.remove(place)
        systemd.reload()
        systemd.reset_failed(unit)
    results = [
        result for entry in entries if (result := _result(str(entry.get("MESSAGE")))) is not None
    ]
    if not results:
        raise OptictlError(
            "the attack could not be started", remedy=f"journalctl -u {unit}", detail=said
        )
    return [*results, _as_another_user(deployment.paths)]


def _as_another_user(paths: Paths) -> Result:
    path = Path(f"/run/credentials/{paths.service_unit}/proxy_key")
    found = {"missing": "the service does not run"}.get(files.file_facts(path).kind)
    readable = processes.readable_as(processes.NOBODY, path)
    return Result(
        id="sandbox.credential-of-another",
        title="From outside: read the service's credential as another user",
        status="skip" if found else "fail" if readable else "pass",
        expected="is refused",
        found=found or ("read by nobody" if readable else "refused"),
        remedy=paths.command("restart") if readable else "",
    )


def _result(line: str) -> Result | None:
    try:
        seen = json.loads(line)
        good = seen["must"] == seen["happened"]
        expected = "is refused" if seen["must"] == "fail" else "works"
        return Result(
            id=f"sandbox.{seen['id']}",
            title=f"From inside: {seen['title']}",
            status="pass" if good else "fail",
            expected=expected,
            found=seen["detail"],
            remedy="" if good else "optictl check --only unit names what weakens the unit",
        )
    except (ValueError, KeyError, TypeError):
        return None
