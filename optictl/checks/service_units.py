"""What the checks of units, service and confinement share."""

from __future__ import annotations

from pathlib import Path

from optictl.checks.engine import Skip
from optictl.facts import units as unit_facts
from optictl.facts.deployment import Deployment
from optictl.host import files
from optictl.host.systemd import Unit

#: The checks whose faults prevent the service from starting, or end it.
START_BLOCKERS = (
    "release.in-force",
    "release.pinned",
    "env.readable",
    "env.forbidden",
    "env.upstream-key",
    "key.strength",
    "proxy-config.litellm-only",
    "files.ownership",
    "unit.installed",
    "unit.no-weakening-dropin",
    "unit.matches",
    "relay.active",
    "socket.owner",
)


def loaded_service(deployment: Deployment) -> Unit:
    """The unit of the service; a skip if systemd does not know it."""
    unit = deployment.units[deployment.paths.service_unit]
    if not unit.loaded:
        raise Skip(f"systemd does not know {deployment.paths.service_unit}: see unit.installed")
    return unit


def required_units(deployment: Deployment) -> list[str]:
    """The units that must be installed. A hand-made service has no sockets."""
    return (
        [deployment.paths.service_unit]
        if deployment.hand_made is not None
        else unit_facts.units(deployment.config, deployment.paths)
    )


def systemctl(deployment: Deployment, arguments: str) -> str:
    """The systemctl command for the systemd that manages this deployment."""
    flags = "--user " if deployment.paths.scope == "user" else ""
    return f"systemctl {flags}{arguments}"


def is_masked(path: Path) -> bool:
    """Whether a unit file is a link to /dev/null."""
    return files.file_facts(path).kind == "link" and path.resolve() == Path("/dev/null")
