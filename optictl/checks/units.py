"""Checks of the unit files and of what systemd has read of them."""

from __future__ import annotations

from collections.abc import Iterator

from optictl.checks.engine import Finding, Skip, check
from optictl.checks.service_units import is_masked, loaded_service, required_units, systemctl
from optictl.deployment import artefacts, remedies
from optictl.facts import units as unit_facts
from optictl.facts.deployment import MANAGED, Deployment
from optictl.host import files
from optictl.host.systemd import Systemd, missing_protections

#: Directives that a drop-in may not set: each is a part of the sandbox or an invariant.
_PROTECTED = frozenset(
    """
    ExecStart Environment EnvironmentFile PassEnvironment UnsetEnvironment User DynamicUser
    WorkingDirectory LoadCredential SetCredential ProtectSystem ProtectHome PrivateTmp
    PrivateDevices PrivateNetwork PrivateUsers RootDirectory BindPaths BindReadOnlyPaths
    ReadWritePaths ExecPaths NoExecPaths RestrictAddressFamilies IPAddressAllow IPAddressDeny
    CapabilityBoundingSet AmbientCapabilities NoNewPrivileges MemoryDenyWriteExecute
    SystemCallFilter RestrictNamespaces Restart WatchdogSec ListenStream
    """.split()  # noqa: SIM905  (a list of thirty lines would hide it)
)


@check(
    "unit.installed",
    "systemd knows the units",
    "service and sockets loaded, none masked",
    fault="systemd does not know the service",
    live=True,
    requires=("config.valid",),
    explained_by=("release.in-force",),
)
def unit_installed(deployment: Deployment) -> Iterator[Finding]:
    """systemd has loaded the service and its sockets.

    How: reads LoadState of each unit that the configuration requires.
    Why: systemd does not start a missing or masked unit, neither at boot nor after a crash.
    """
    for name in required_units(deployment):
        unit, path = deployment.units[name], deployment.paths.units / name
        if is_masked(path):
            yield Finding(f"{name} is masked", "fail", f"rm {path} && {deployment.install}")
        elif unit.load_state == "masked":
            unmask = systemctl(deployment, f"unmask {name}")
            yield Finding(f"{name} is masked", "fail", f"{unmask} && {deployment.install}")
        elif not unit.loaded:
            yield Finding(f"systemd does not know {name}", "fail", deployment.install)
    yield Finding(", ".join(required_units(deployment)))


@check(
    MANAGED,
    "optictl manages the service",
    "optictl wrote the unit file",
    fault="The service was not installed by optictl",
)
def unit_managed(deployment: Deployment) -> Iterator[Finding]:
    """optictl wrote the unit file of the service, not a person or another program.

    How: the manifest lists the unit file, or its text is one that optictl rendered.
    Why: a hand-made service has no guard and no pinned release, and `upgrade` and `rollback` do not
    manage it. The other checks then judge what they can read of it: its unit, drop-ins, env files,
    provider file and process.
    """
    service = deployment.hand_made
    if service is not None:
        what = "" if service.runs_optillm else ", and its ExecStart= does not seem to run OptiLLM"
        cause = service.redact("; ".join(service.problems))
        yield Finding(
            f"{service.path} was not written by optictl{what}", "fail", deployment.take_over, cause
        )
    elif files.file_facts(deployment.paths.service).kind == "missing":
        raise Skip(f"{deployment.paths.service_unit} is not installed: run {deployment.install}")
    yield Finding(f"optictl wrote {deployment.paths.service}")


@check(
    "unit.matches",
    "The units match the configuration",
    "byte for byte as rendered",
    fault="A unit does not match the configuration",
    requires=("config.valid",),
    explained_by=("release.in-force", "unit.installed"),
)
def unit_matches(deployment: Deployment) -> Iterator[Finding]:
    """The unit files on disk are the ones that optictl renders from this configuration.

    How: renders the units again and compares them byte for byte; writes nothing.
    Why: every protection of the sandbox and every flag of the service is a line of a unit. A
    difference means a local edit, or a change of the configuration that is not installed yet.
    """
    deployment.require_managed()
    count = 0
    host = unit_facts.host(deployment.paths)
    for artefact in artefacts.rendered_files(deployment.config, deployment.paths, host):
        if artefact.path.suffix not in (".service", ".socket"):
            continue
        text = None if is_masked(artefact.path) else files.read(artefact.path)
        if text is None:
            yield Finding(f"{artefact.path} is missing", "fail", deployment.install)
        elif text != artefact.text:
            yield Finding(
                f"{artefact.path} differs from the rendered file", "fail", deployment.restore
            )
        count += text is not None
    if not count:
        raise Skip(f"nothing is installed: run {deployment.install}")
    version = Systemd("system").version()
    missing = missing_protections(version)
    note = f"; systemd {version} does not know {', '.join(missing)}" if missing else ""
    yield Finding(f"as rendered{note}")


@check(
    "unit.enabled",
    "The service starts at boot",
    "service and sockets enabled",
    fault="The service does not start at boot",
    live=True,
    requires=("config.valid", "unit.installed"),
)
def unit_enabled(deployment: Deployment) -> Iterator[Finding]:
    """The service starts again after a reboot.

    How: reads UnitFileState of the service and its sockets.
    Why: a service that is not enabled runs today and does not come back after a power failure.
    """
    loaded_service(deployment)
    for name in required_units(deployment):
        state = deployment.units[name].unit_file_state
        if deployment.units[name].loaded and state != "enabled":
            yield Finding(
                f"{name} is {state or 'unknown'}", "fail", systemctl(deployment, f"enable {name}")
            )
    yield Finding("enabled")


@check(
    "unit.no-weakening-dropin",
    "No drop-in weakens the sandbox",
    "drop-ins set no protected directive",
    fault="A drop-in weakens the sandbox of the service",
    live=True,
    requires=("unit.installed",),
)
def unit_no_weakening_dropin(deployment: Deployment) -> Iterator[Finding]:
    """No drop-in changes what the service is, may do or can see.

    How: compares the directives of every drop-in of the units, already read by systemd or not, with
    a list of protected directives.
    Why: one line in another file can undo what the unit says. Drop-ins may set limits and timeouts.
    """
    deployment.require_managed()
    read_names = []
    loaded_service(deployment)
    for unit in deployment.units.values():
        for path in unit_facts.drop_ins(deployment.paths, unit.name, unit.drop_in_paths):
            read_names.append(path.name)
            if names := _protected_directives(files.read(path) or ""):
                steps = [
                    remedies.unset(path, "|".join(names)),
                    systemctl(deployment, "daemon-reload"),
                ]
                # a restart of the service does not open its socket again
                is_socket = unit.name.endswith(".socket")
                steps += (
                    [systemctl(deployment, f"restart {unit.name}"), deployment.start]
                    if is_socket
                    else [deployment.restart]
                )
                yield Finding(
                    f"{path} sets {', '.join(f'{name}=' for name in names)}",
                    "fail",
                    " && ".join(steps),
                )
    yield Finding(f"drop-ins: {', '.join(read_names)}" if read_names else "no drop-in")


def _protected_directives(text: str) -> list[str]:
    """The protected directives that a drop-in sets, each once."""
    lines = (line.partition("=") for line in text.splitlines())
    names = (name.strip() for name, sign, _ in lines if sign)
    return list(dict.fromkeys(name for name in names if name in _PROTECTED))


@check(
    "unit.reloaded",
    "systemd has read the current units",
    "no daemon-reload needed",
    fault="systemd uses an older text of a unit than the one on disk",
    live=True,
    requires=("unit.installed",),
    explained_by=("unit.matches", "unit.no-weakening-dropin"),
)
def unit_reloaded(deployment: Deployment) -> Iterator[Finding]:
    """systemd has read the unit files that are on disk.

    How: reads NeedDaemonReload of each unit.
    Why: a fix in a unit file has no effect until systemd reads the file.
    """
    loaded_service(deployment)
    for name, unit in deployment.units.items():
        if unit.need_daemon_reload:
            remedy = f"{systemctl(deployment, 'daemon-reload')} && {deployment.restart}"
            yield Finding(f"{name} changed on disk since systemd read it", "fail", remedy)
    yield Finding("systemd has read the current files")
