"""`check --attack`: escape attempts run inside the sandbox, in a copy of the service's unit."""

from __future__ import annotations

import json
import os
from pathlib import Path

from optictl.deployment import render
from optictl.deployment.paths import Paths
from optictl.errors import NotInstalled, ToolError
from optictl.facts import units
from optictl.facts.deployment import Deployment
from optictl.host import files, processes
from optictl.host.systemd import RUNTIME, Systemd
from optictl.results import Result


def attack_unit(service: str, target: str, name: str) -> str:
    """The service's unit with another program and without supervision. Pure.

    Every protection stays. `target` is where the upstream is (unix:PATH or tcp:HOST:PORT), `name`
    the identifier of its log lines.
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
                f"ExecStart={program} -I {guard.strip()}/sandbox_probe.py {target}",
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
    service = files.read(deployment.paths.service)
    if service is None or deployment.paths.scope != "system":
        raise NotInstalled(
            "there is no sandbox to attack", remedy=deployment.paths.command("install")
        )
    # its own name: systemd forgets a finished unit, and the journal finds it by name alone
    name = f"{deployment.paths.name}-attack"
    unit = f"{name}-{os.getpid()}.service"
    messages, output = _run_unit(
        units.manager(deployment.paths), unit, attack_unit(service, _upstream(deployment), name)
    )
    results = [result for text in messages if (result := _result(text)) is not None]
    if not results:
        raise ToolError("the attack could not be started", output, remedy=f"journalctl -u {unit}")
    return [*results, _as_another_user(deployment.paths)]


def _upstream(deployment: Deployment) -> str:
    """Where the upstream is for a process in the sandbox."""
    if render.is_sealed(deployment.config, deployment.paths):
        return f"unix:/run/{deployment.paths.upstream_name}/socket"
    return f"tcp:{render.upstream_address(deployment.config)}"


def _run_unit(systemd: Systemd, unit: str, text: str) -> tuple[list[str], str]:
    """Run a unit once: its messages in the journal, and what systemctl said where it failed."""
    place = RUNTIME["system"] / unit
    files.write(place, text, 0o644)
    output = ""
    try:
        systemd.reload()
        try:
            systemd.start(unit)
        except ToolError as error:
            output = error.output  # it ends with 1 when an escape attempt succeeds
        return [str(entry.get("MESSAGE")) for entry in systemd.journal(unit)], output
    finally:
        files.remove(place)
        systemd.reload()
        systemd.reset_failed(unit)


def _as_another_user(paths: Paths) -> Result:
    path = Path(f"/run/credentials/{paths.service_unit}/proxy_key")
    not_tried = {"missing": "the service does not run"}.get(files.file_facts(path).kind)
    readable = processes.readable_as(processes.NOBODY, path)
    return Result(
        id="sandbox.credential-of-another",
        title="From outside: read the service's credential as another user",
        status="skip" if not_tried else "fail" if readable else "pass",
        expected="is refused",
        found=not_tried or ("another user can read it" if readable else "refused"),
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
