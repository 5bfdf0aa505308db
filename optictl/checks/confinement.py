"""Checks of what confines the service: its sandbox, its secrets, the relay of a sealed service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from optictl.checks.engine import Finding, Skip, check
from optictl.checks.service_units import loaded_service, systemctl
from optictl.deployment import render
from optictl.errors import NotApplicable
from optictl.facts import units as unit_facts
from optictl.facts.deployment import Deployment
from optictl.host import files
from optictl.host.systemd import Systemd, socket_proxyd

#: Highest allowed score of `systemd-analyze security`: of a sealed service, of one on loopback.
_MAX_EXPOSURE_SEALED = 0.2
_MAX_EXPOSURE_LOOPBACK = 1.0


@check(
    "service.exposure",
    "The sandbox of the service is tight",
    f"systemd-analyze security: at most {_MAX_EXPOSURE_SEALED} if sealed,"
    f" {_MAX_EXPOSURE_LOOPBACK} on loopback",
    fault="The sandbox of the service is weaker than the configuration requires",
    timeout=30,
    requires=("config.valid",),
    explained_by=("unit.matches", "unit.installed", "unit.no-weakening-dropin"),
)
def service_exposure(deployment: Deployment) -> Iterator[Finding]:
    """The unit file confines the service as much as its isolation promises.

    How: reads the score that `systemd-analyze security --offline` gives the unit file.
    `check --attack` makes real escape attempts.
    Why: a newer systemd may know protections that the unit does not use yet.
    """
    deployment.require_managed()
    if deployment.paths.scope != "system" or not Systemd("system").version():
        raise NotApplicable("only units of the system manager have a sandbox")
    if files.file_facts(deployment.paths.service).kind == "missing":
        raise Skip(f"nothing is installed: run {deployment.install}")
    score = Systemd("system").exposure(deployment.paths.service)
    if score is None:
        raise Skip("this version of systemd-analyze cannot analyze a unit file")
    is_sealed = render.is_sealed(deployment.config, deployment.paths)
    limit = _MAX_EXPOSURE_SEALED if is_sealed else _MAX_EXPOSURE_LOOPBACK
    if score > limit:
        yield Finding(f"exposure {score}, more than {limit}", "fail", deployment.restore)
    yield Finding(f"exposure {score}")


@check(
    "credential.mode",
    "Only the service can read its secrets",
    "the credential directory is closed to others",
    fault="Another user can read the secrets of the service",
    live=True,
    requires=("service.active",),
)
def credential_mode(deployment: Deployment) -> Iterator[Finding]:
    """Only root and the user of the service can read the running service's copies of the secrets.

    How: compares mode, owner and POSIX ACL of /run/credentials/optillm-proxy.service and its files
    with the user of the service. From systemd 257 on, an ACL admits that user, and the group bits
    are only the ACL's mask.
    Why: the files in /etc may be closed while these copies are open.
    """
    deployment.require_managed()
    loaded_service(deployment)
    if deployment.paths.scope != "system":
        raise NotApplicable("a user manager keeps credentials in that user's runtime directory")
    directory = Path(f"/run/credentials/{deployment.paths.service_unit}")
    if files.file_facts(directory).kind == "missing":
        raise Skip("the service does not run: see service.active")
    allowed = {0, *(process.uid for process in deployment.live.processes)}
    judged = []
    for path in (directory, *(directory / name for name in ("proxy_key", "upstream_env"))):
        judged.append(path.name)
        readers = [str(r) for r in files.readers(path) if not r.is_one_of(allowed)]
        if readers:
            yield Finding(f"{', '.join(readers)} can read {path}", "fail", deployment.restart)
    yield Finding(f"only root and the service can read {', '.join(judged)}")


@check(
    "relay.active",
    "The sealed service reaches its upstream",
    "optillm-proxy-upstream.socket listens",
    fault="The relay from the sealed service to LiteLLM does not run",
    live=True,
    requires=("config.valid", "unit.installed"),
    explained_by=("unit.matches",),
)
def relay_active(deployment: Deployment) -> Iterator[Finding]:
    """The relay, the only way out of a sealed service, works.

    How: reads the state of optillm-proxy-upstream.socket and of its service, and looks for the
    socket that the sealed service connects to.
    Why: a sealed service has no network; without the relay every strategy fails.
    """
    deployment.require_managed()
    loaded_service(deployment)
    if not render.is_sealed(deployment.config, deployment.paths):
        raise NotApplicable("only a sealed service needs the relay")
    yield from _failed_relay(deployment)
    socket = deployment.units[deployment.paths.upstream_socket.name]
    path = render.relay_socket(deployment.paths)
    if not socket.active:
        yield Finding(f"{socket.name} is {socket.active_state}", "fail", deployment.start)
    elif files.file_facts(path).kind == "missing":
        restart = systemctl(deployment, f"restart {socket.name}")
        yield Finding(
            f"{path} does not exist",
            "fail",
            f"{restart} && {deployment.start}",
            "systemd listens on a socket file that was removed",
        )
    yield Finding("listening")


def _failed_relay(deployment: Deployment) -> Iterator[Finding]:
    relay = deployment.units[deployment.paths.upstream_service.name]
    # a restart loop is "auto-restart" between two attempts, and "activating" during one
    is_looping = relay.active_state == "activating" and relay.restarts > 0
    if relay.active_state != "failed" and relay.sub_state != "auto-restart" and not is_looping:
        return
    if socket_proxyd() is None:
        remedy = (
            "install systemd's systemd-socket-proxyd, or set isolation: loopback, "
            f"then {deployment.install}"
        )
    else:
        restart = systemctl(deployment, f"restart {relay.name}")
        remedy = f"{deployment.restore} && {restart}"
    yield Finding(
        f"{relay.name} does not start ({relay.sub_state}, {relay.restarts} restarts)",
        "fail",
        remedy,
        unit_facts.last_problem(Systemd(deployment.paths.scope), deployment.paths, relay.name),
    )
