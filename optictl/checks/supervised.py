"""The units, the service under systemd, and (with --attack) the walls of its sandbox."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from pathlib import Path

from optictl.checks.engine import Finding, Skip, check
from optictl.deployment import artefacts, remedies, render
from optictl.facts import units
from optictl.facts.deployment import MANAGED, Deployment
from optictl.host import files, processes
from optictl.host.systemd import RUNTIME, Systemd, Unit, missing_protections, socket_proxyd
from optictl.releases import store

#: Directives that a drop-in may not set: each is a wall or an invariant.
_WALLS = frozenset(
    """
    ExecStart Environment EnvironmentFile PassEnvironment UnsetEnvironment User DynamicUser WorkingDirectory
    LoadCredential SetCredential ProtectSystem ProtectHome PrivateTmp PrivateDevices PrivateNetwork
    PrivateUsers RootDirectory BindPaths BindReadOnlyPaths ReadWritePaths ExecPaths NoExecPaths
    RestrictAddressFamilies IPAddressAllow IPAddressDeny CapabilityBoundingSet AmbientCapabilities
    NoNewPrivileges MemoryDenyWriteExecute SystemCallFilter RestrictNamespaces Restart WatchdogSec
    ListenStream
    """.split()  # noqa: SIM905  (a list of thirty lines would hide it)
)
#: Scores of `systemd-analyze security` that the two isolations reach.
_EXPOSURE = {True: 0.2, False: 1.0}
#: More restarts of one activation than this are a loop.
_MANY_RESTARTS = 3
#: Seconds within which so many restarts are one.
_WINDOW = 600
#: A part of the memory's limit that is used up before one is told.
_NEAR = 0.9
#: systemd's own number for the message that a unit is started again (sd-messages(3)).
_RESTART_MESSAGE = "5eb03494b6584870a536b337290809b3"


def _service(deployment: Deployment) -> Unit:
    unit = deployment.units[deployment.paths.service_unit]
    if not unit.loaded:
        raise Skip(f"systemd knows no {deployment.paths.service_unit}: see unit.installed")
    return unit


def _systemctl(deployment: Deployment, words: str) -> str:
    """The systemctl command for the manager of this deployment."""
    return f"systemctl --user {words}" if deployment.paths.scope == "user" else f"systemctl {words}"


def _units(deployment: Deployment) -> list[str]:
    """The units that have to be there: a hand-made service is one, without sockets."""
    return (
        [deployment.paths.service_unit]
        if deployment.hand_made is not None
        else units.units(deployment.config, deployment.paths)
    )


def _is_masked(path: Path) -> bool:
    return files.file_facts(path).kind == "link" and path.resolve() == Path("/dev/null")


#: What keeps the service from starting, or ends it.
_STOPPERS = (
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
    """systemd has the service and its sockets.

    How: LoadState of each unit that the configuration asks for.
    Why: a unit that is missing or masked is started by nobody, at boot or after a crash.
    """
    for name in _units(deployment):
        unit, path = deployment.units[name], deployment.paths.units / name
        if _is_masked(path):
            yield Finding(f"{name} is masked", "fail", f"rm {path} && {deployment.install}")
        elif unit.load_state == "masked":
            yield Finding(
                f"{name} is masked",
                "fail",
                f"{_systemctl(deployment, f'unmask {name}')} && {deployment.install}",
            )
        elif not unit.loaded:
            yield Finding(f"systemd knows no {name}", "fail", deployment.install)
    yield Finding(", ".join(_units(deployment)))


@check(
    MANAGED,
    "optictl manages the service",
    "the unit is one that optictl wrote",
    fault="The service was not installed by optictl",
)
def unit_managed(deployment: Deployment) -> Iterator[Finding]:
    """The unit of the service is optictl's, not one that a person or another program wrote.

    How: the manifest names the unit file, or its text is one that optictl rendered.
    Why: no guard stands in front of a hand-made service, nothing of it is pinned, and `upgrade` and `rollback` do not know
    it. The other checks then judge what can be read of it: its unit, drop-ins, env files, provider file and process.
    """
    service = deployment.hand_made
    if service is not None:
        what = "" if service.runs_optillm else ", and no OptiLLM can be seen in its ExecStart="
        cause = service.redact("; ".join(service.problems))
        yield Finding(
            f"{service.path} was not written by optictl{what}", "fail", deployment.take_over, cause
        )
    elif files.file_facts(deployment.paths.service).kind == "missing":
        raise Skip(f"there is no {deployment.paths.service_unit}: run {deployment.install}")
    yield Finding(f"{deployment.paths.service} is optictl's")


@check(
    "unit.matches",
    "The units are what the configuration asks for",
    "byte for byte as rendered",
    fault="A unit is not what the configuration asks for",
    requires=("config.valid",),
    explained_by=("release.in-force", "unit.installed"),
)
def unit_matches(deployment: Deployment) -> Iterator[Finding]:
    """The unit files on disk are the ones that optictl renders from this configuration.

    How: they are rendered anew and compared byte for byte; nothing is written.
    Why: every wall of the sandbox and every flag of the service is a line of them. A difference is somebody's edit, or a
    configuration that was changed and not installed.
    """
    deployment.require_managed()
    seen = 0
    for artefact in artefacts.rendered_files(
        deployment.config, deployment.paths, units.host(deployment.paths)
    ):
        if artefact.path.suffix not in (".service", ".socket"):
            continue
        text = None if _is_masked(artefact.path) else files.read(artefact.path)
        if text is None:
            yield Finding(f"{artefact.path} is missing", "fail", deployment.install)
        elif text != artefact.text:
            yield Finding(
                f"{artefact.path} differs from what is rendered", "fail", deployment.restore
            )
        seen += text is not None
    if not seen:
        raise Skip(f"nothing is installed: run {deployment.install}")
    version = Systemd("system").version()
    missing = missing_protections(version)
    note = f"; systemd {version} does not know {', '.join(missing)}" if missing else ""
    yield Finding(f"as rendered{note}")


@check(
    "unit.enabled",
    "The service starts at boot",
    "service and sockets enabled",
    fault="The service would not start at boot",
    live=True,
    requires=("config.valid", "unit.installed"),
)
def unit_enabled(deployment: Deployment) -> Iterator[Finding]:
    """After a reboot the service is there again.

    How: UnitFileState of the service and its sockets.
    Why: it runs today and is gone after the next power cut.
    """
    _service(deployment)
    for name in _units(deployment):
        state = deployment.units[name].unit_file_state
        if deployment.units[name].loaded and state != "enabled":
            yield Finding(
                f"{name} is {state or 'unknown'}", "fail", _systemctl(deployment, f"enable {name}")
            )
    yield Finding("enabled")


@check(
    "unit.no-weakening-dropin",
    "No drop-in takes a wall down",
    "drop-ins set nothing that the unit relies on",
    fault="A drop-in takes a wall of the service down",
    live=True,
    requires=("unit.installed",),
)
def unit_no_weakening_dropin(deployment: Deployment) -> Iterator[Finding]:
    """No drop-in changes what the service is, may do or can see.

    How: the directives of every drop-in of the units, read by systemd or waiting for a reload, against a list of those that
    are walls or invariants.
    Why: one line in a file elsewhere undoes what the unit says. Limits and timeouts may be set by drop-ins.
    """
    deployment.require_managed()
    looked = []
    _service(deployment)
    for unit in deployment.units.values():
        for path in units.drop_ins(deployment.paths, unit.name, unit.drop_in_paths):
            looked.append(path.name)
            lines = (line.partition("=") for line in (files.read(path) or "").splitlines())
            if names := list(
                dict.fromkeys(
                    name.strip() for name, sign, _ in lines if sign and name.strip() in _WALLS
                )
            ):
                steps = [
                    remedies.unset(path, "|".join(names)),
                    _systemctl(deployment, "daemon-reload"),
                ]
                # a socket is opened anew by itself only
                is_socket = unit.name.endswith(".socket")
                steps += (
                    [_systemctl(deployment, f"restart {unit.name}"), deployment.start]
                    if is_socket
                    else [deployment.restart]
                )
                yield Finding(
                    f"{path} sets {', '.join(f'{name}=' for name in names)}",
                    "fail",
                    " && ".join(steps),
                )
    yield Finding(f"drop-ins: {', '.join(looked)}" if looked else "no drop-in")


@check(
    "unit.reloaded",
    "systemd has read the units as they are",
    "no daemon-reload is due",
    fault="systemd works with an older text of a unit than the one on disk",
    live=True,
    requires=("unit.installed",),
    explained_by=("unit.matches", "unit.no-weakening-dropin"),
)
def unit_reloaded(deployment: Deployment) -> Iterator[Finding]:
    """What systemd would start is what stands on disk.

    How: NeedDaemonReload of each unit.
    Why: a unit that was mended on disk and not read protects nobody.
    """
    _service(deployment)
    for name, unit in deployment.units.items():
        if unit.need_daemon_reload:
            remedy = f"{_systemctl(deployment, 'daemon-reload')} && {deployment.restart}"
            yield Finding(f"{name} changed on disk since systemd read it", "fail", remedy)
    yield Finding("read as they are")


@check(
    "socket.owner",
    "systemd holds the port",
    "the listening socket belongs to optillm-proxy.socket",
    fault="systemd does not hold the port",
    live=True,
    requires=("config.valid", "unit.installed"),
    explained_by=("unit.matches", "unit.reloaded", "unit.no-weakening-dropin"),
)
def socket_owner(deployment: Deployment) -> Iterator[Finding]:
    """The port is systemd's own socket, which stays open while the service restarts.

    How: the state of optillm-proxy.socket, and (as root) whether the listening socket is one that PID 1 holds.
    Why: another program on the port would be given LiteLLM's requests and the key with them.
    """
    deployment.require_managed()
    _service(deployment)
    socket = deployment.units[deployment.paths.socket_unit]
    port = deployment.config.listen.port
    listening = [one for one in processes.listeners() if one.port == port]
    if not socket.active:
        stranger = (
            f", and process {deployment.live.pids} listens on port {port}"
            if deployment.is_live
            else ""
        )
        remedy = deployment.restart if stranger else deployment.start
        yield Finding(
            f"{deployment.paths.socket_unit} is {socket.active_state}{stranger}", "fail", remedy
        )
        return
    if not listening:
        again = _systemctl(deployment, f"restart {deployment.paths.socket_unit}")
        yield Finding(
            f"nothing listens on port {port}",
            "fail",
            again,
            "the socket unit was read with another port",
        )
        return
    if deployment.paths.scope == "system":
        held = processes.sockets_of(1)
        strangers = [
            one for one in listening if held and one.inode not in held
        ]  # only root sees what PID 1 holds
        for pid, inodes in processes.owners({one.inode for one in strangers}).items():
            addresses = ", ".join(
                f"{one.address}:{port}" for one in strangers if one.inode in inodes
            )
            found = f"process {pid} listens on {addresses}, which is not systemd's socket"
            yield Finding(found, "fail", deployment.without(pid))
    yield Finding(f"{deployment.paths.socket_unit} listens on port {port}")


@check(
    "service.active",
    "The service runs",
    "active, its main process alive",
    fault="The service does not run",
    felt=True,
    live=True,
    requires=("unit.installed",),
    explained_by=_STOPPERS,
)
def service_active(deployment: Deployment) -> Iterator[Finding]:
    """The service has been started and has said that it is ready.

    How: ActiveState of the unit; if it is not active, the words of its last run in the journal.
    Why: the socket goes on to take connections while the service is down: clients wait instead of being refused.
    """
    unit = _service(deployment)
    if unit.active_state == "active":
        yield Finding(f"active since {unit.active_enter_timestamp}")
        return
    cause = units.last_problem(Systemd(deployment.paths.scope), deployment.paths)
    if unit.exec_main_status == 78:  # it is started again by itself
        logs = deployment.paths.command("logs --errors")
        yield Finding(
            "it was refused its configuration",
            "fail",
            f"{logs} shows why; fix that, then {deployment.restart}",
            cause,
        )
        return
    if deployment.hand_made is not None:
        cause = deployment.hand_made.redact(cause)
    found = f"{unit.active_state} ({unit.sub_state}), result {unit.result}"
    yield Finding(found, "fail", deployment.start, cause, deployment.is_alone)


@check(
    "service.restarts",
    "The service does not start over and over",
    f"at most {_MANY_RESTARTS} restarts in {_WINDOW // 60} minutes",
    fault="The service starts over and over",
    felt=True,
    live=True,
    requires=("service.active",),
    explained_by=_STOPPERS,
)
def service_restarts(deployment: Deployment) -> Iterator[Finding]:
    """The service has not died again and again of late.

    How: NRestarts of the unit, which a start or restart by hand sets to 0, and the journal for when they were.
    Why: each death loses what was in flight, and a service that is up whenever somebody looks can be down most of the time.
    """
    unit = _service(deployment)
    if unit.restarts > _MANY_RESTARTS and (lately := _lately(deployment, unit)) > _MANY_RESTARTS:
        cause = units.last_problem(Systemd(deployment.paths.scope), deployment.paths)
        logs = deployment.paths.command("logs --errors")
        found = f"{lately} restarts in {_WINDOW // 60} minutes"
        yield Finding(
            found,
            "fail",
            f"{logs} shows why; fix that, then {deployment.restart}",
            cause,
            deployment.is_alone,
        )
    yield Finding(f"{unit.restarts} restarts since somebody started it")


def _lately(deployment: Deployment, unit: Unit) -> int:
    """How often the service was started again within the window. A journal that has no word of it cannot tell: every time."""
    told = Systemd(deployment.paths.scope).journal(
        unit.name, "--lines=100", f"MESSAGE_ID={_RESTART_MESSAGE}"
    )
    since = (time.time() - _WINDOW) * 1e6
    lately = sum(float(entry.get("__REALTIME_TIMESTAMP", 0)) > since for entry in told)
    return min(unit.restarts, lately) if told else unit.restarts


@check(
    "process.memory",
    "The service has memory left",
    f"less than {_NEAR:.0%} of MemoryMax in use",
    fault="The service is near the limit of its memory",
    live=True,
    requires=("service.active",),
)
def process_memory(deployment: Deployment) -> Iterator[Finding]:
    """What the service's processes hold is not near the limit at which the kernel ends them.

    How: the memory that the processes that serve the port do not share with files, and MemoryMax of the unit.
    Why: at the limit one of them is killed, with every request that it was working on.
    """
    unit = _service(deployment)
    limit = unit.memory_max
    if limit is None:
        raise Skip("the unit has no MemoryMax")
    used = deployment.memory
    if used > _NEAR * limit:
        lowered = [
            path
            for path in map(Path, unit.drop_in_paths)
            if "MemoryMax=" in (files.read(path) or "")
        ]
        steps = [remedies.unset(path, "MemoryMax") for path in lowered]
        steps += [_systemctl(deployment, "daemon-reload")] if lowered else [deployment.restart]
        where = f", by {', '.join(map(str, lowered))}" if lowered else ""
        yield Finding(
            f"{used >> 20} MiB in use, of at most {limit >> 20} MiB{where}",
            "fail",
            " && ".join(steps),
        )
    yield Finding(f"{used >> 20} of {limit >> 20} MiB")


@check(
    "service.current-release",
    "The service runs the release in force",
    "its main process works in that release",
    fault="The service still runs another release than the one in force",
    live=True,
    requires=("release.in-force", "service.active"),
)
def service_current_release(deployment: Deployment) -> Iterator[Finding]:
    """What runs is what is in force.

    How: the working directory of the main process is the one of that release.
    Why: after an installation that was not followed by a restart, a mended defect still bites.
    """
    unit = _service(deployment)
    if not unit.main_pid:
        raise Skip("the service does not run: see service.active")
    process = processes.read_process(unit.main_pid)
    if process is None or process.directory is None:
        raise Skip(f"process {unit.main_pid} cannot be looked into: run it with sudo")
    if process.directory != files.identity(deployment.release / "work"):
        yield Finding(
            f"process {unit.main_pid} runs another release than {deployment.release.name}",
            "fail",
            deployment.restart,
        )
    yield Finding(f"process {unit.main_pid} runs {deployment.release.name}")


@check(
    "service.exposure",
    "The walls are up",
    "systemd-analyze security: 0.2 at most when sealed, 1.0 on loopback",
    fault="The walls of the service are lower than the configuration asks for",
    timeout=30,
    requires=("config.valid",),
    explained_by=("unit.matches", "unit.installed", "unit.no-weakening-dropin"),
)
def service_exposure(deployment: Deployment) -> Iterator[Finding]:
    """The unit file is as closed as its isolation promises.

    How: the score that `systemd-analyze security --offline` gives the unit file; `check --attack` tries the walls.
    Why: a newer systemd may know walls that the unit does not have yet.
    """
    deployment.require_managed()
    if deployment.paths.scope != "system" or not Systemd("system").version():
        raise Skip("only units of the system's manager have walls")
    if files.file_facts(deployment.paths.service).kind == "missing":
        raise Skip(f"nothing is installed: run {deployment.install}")
    score = Systemd("system").exposure(deployment.paths.service)
    if score is None:
        raise Skip("this systemd-analyze cannot judge a unit file")
    limit = _EXPOSURE[render.is_sealed(deployment.config, deployment.paths)]
    if score > limit:
        yield Finding(f"exposure {score}, more than {limit}", "fail", deployment.restore)
    yield Finding(f"exposure {score}")


@check(
    "service.leftover",
    "No half-done restart or build is left",
    "no sibling unit, no half-built release",
    fault="A restart or a build was interrupted and left something behind",
)
def service_leftover(deployment: Deployment) -> Iterator[Finding]:
    """Nothing of an interrupted restart or installation lies about.

    How: a unit of the sibling below /run, directories of releases without release.json.
    Why: a sibling that was left serves an older release beside the service.
    """
    for path in store.half_built(deployment.paths):
        yield Finding(f"{path} is half-built", "warn", f"rm -r {shlex.quote(str(path))}")
    if (
        not deployment.paths.is_private
        and (RUNTIME["system"] / deployment.paths.sibling_unit).exists()
    ):
        yield Finding(
            f"{deployment.paths.sibling_unit} is there",
            "warn",
            deployment.paths.command("restart"),
            "a restart was interrupted",
        )
    yield Finding("none")


@check(
    "credential.mode",
    "The service's secrets are its own",
    "the credential directory is closed to others",
    fault="Somebody else can read the secrets that systemd gave to the service",
    live=True,
    requires=("service.active",),
)
def credential_mode(deployment: Deployment) -> Iterator[Finding]:
    """No user but the service's own can read the copies of the secrets that the running service has.

    How: mode, owner and POSIX access list of /run/credentials/optillm-proxy.service and of what is in it, against the
    user of the service. From systemd 257 on an access list lets that user in, and the group bits are only its mask.
    Why: the files in /etc may be closed and these copies open.
    """
    deployment.require_managed()
    _service(deployment)
    if deployment.paths.scope != "system":
        raise Skip("a user's manager keeps credentials below that user's own directory")
    directory = Path(f"/run/credentials/{deployment.paths.service_unit}")
    if files.file_facts(directory).kind == "missing":
        raise Skip("the service does not run: see service.active")
    own = {0, *(process.uid for process in deployment.live.processes)}
    judged = []
    for path in (directory, *(directory / name for name in ("proxy_key", "upstream_env"))):
        # without the directory's own permission a file in it cannot be reached
        readers = files.readers(path)
        judged.append(path.name)
        if others := [str(reader) for reader in readers if not reader.is_one_of(own)]:
            yield Finding(f"{', '.join(others)} can read {path}", "fail", deployment.restart)
    yield Finding(f"root and the service alone can read {', '.join(judged)}")


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
    """The one way out of a sealed service is open.

    How: the state of optillm-proxy-upstream.socket and of the service behind it, and whether the socket that the
    sealed service calls is there.
    Why: a sealed service has no network; without the relay every strategy fails.
    """
    deployment.require_managed()
    _service(deployment)
    if not render.is_sealed(deployment.config, deployment.paths):
        raise Skip("only a sealed service needs the relay")
    unit = deployment.units[deployment.paths.upstream_socket.name]
    relay = deployment.units[deployment.paths.upstream_service.name]
    # between two attempts, and in the moment of one
    again_and_again = relay.active_state == "activating" and relay.restarts > 0
    if relay.active_state == "failed" or relay.sub_state == "auto-restart" or again_and_again:
        found = f"{relay.name} does not start ({relay.sub_state}, {relay.restarts} restarts)"
        cause = units.last_problem(Systemd(deployment.paths.scope), deployment.paths, relay.name)
        if socket_proxyd() is None:
            remedy = f"install systemd's systemd-socket-proxyd, or set isolation: loopback, then {deployment.install}"
        else:
            again = _systemctl(deployment, f"restart {relay.name}")
            remedy = f"{deployment.restore} && {again}"
        yield Finding(found, "fail", remedy, cause)
    path = render.relay_socket(deployment.paths)
    if not unit.active:
        yield Finding(f"{unit.name} is {unit.active_state}", "fail", deployment.start)
    elif files.file_facts(path).kind == "missing":
        again = _systemctl(deployment, f"restart {unit.name}")
        yield Finding(
            f"{path} is gone",
            "fail",
            f"{again} && {deployment.start}",
            "systemd listens, and nobody finds it",
        )
    yield Finding("listening")
