"""The units, the service under systemd, and (with --attack) the walls of its sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from optictl import plan, releases, render, supervise
from optictl.checks.registry import Finding, Skip, check
from optictl.checks.site import Site
from optictl.host import files, processes
from optictl.host.systemd import RUNTIME, Systemd, Unit
from optictl.paths import NAME, SIBLING, UPSTREAM

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
#: Directives that newer versions of systemd know and older ones ignore.
_NEWER = {254: "RestartSteps, RestartMaxDelaySec (back-off)"}


def _units(site: Site) -> dict[str, Unit]:
    units = supervise.facts(site.paths)
    if units is None:
        raise Skip("systemd has no say in this deployment")
    return units


def _service(site: Site) -> Unit:
    unit = _units(site)[supervise.SERVICE]
    if not unit.loaded:
        raise Skip(f"systemd knows no {supervise.SERVICE}: see unit.installed")
    return unit


@check("unit.installed", "systemd knows the units", "service and sockets loaded", live=True)
def unit_installed(site: Site) -> Iterator[Finding]:
    units = _units(site)
    for name in supervise.units(site.config, site.paths):
        unit = units[name]
        if unit.properties.get("LoadState") == "masked":
            yield Finding(f"{name} is masked", "fail", f"systemctl unmask {name}")
        elif not unit.loaded:
            yield Finding(f"systemd knows no {name}", "fail", site.paths.command("install"))
    yield Finding(", ".join(supervise.units(site.config, site.paths)))


@check("unit.matches", "The units are what the configuration asks for", "byte for byte as rendered")
def unit_matches(site: Site) -> Iterator[Finding]:
    seen = 0
    for artefact in plan.rendered_files(site.config, site.paths, supervise.host(site.paths)):
        if artefact.path.suffix not in (".service", ".socket"):
            continue
        text = files.read(artefact.path)
        if text is None:
            yield Finding(f"{artefact.path} is missing", "fail", site.paths.command("install"))
        elif text != artefact.text:
            yield Finding(
                f"{artefact.path} differs from what is rendered", "fail", f"{site.paths.command('install')} shows how"
            )
        seen += text is not None
    if not seen:
        raise Skip(f"nothing is installed: run {site.paths.command('install')}")
    version = Systemd("system").version()
    unknown = [what for since, what in _NEWER.items() if 0 < version < since]
    yield Finding("as rendered" + (f"; left out, unknown to systemd {version}: {', '.join(unknown)}" if unknown else ""))


@check("unit.enabled", "The service starts at boot", "service and sockets enabled", live=True)
def unit_enabled(site: Site) -> Iterator[Finding]:
    units = _units(site)
    for name in supervise.units(site.config, site.paths):
        if units[name].loaded and units[name].unit_file_state != "enabled":
            yield Finding(f"{name} is {units[name].unit_file_state or 'unknown'}", "fail", f"systemctl enable {name}")
    _service(site)
    yield Finding("enabled")


@check("unit.no-weakening-dropin", "No drop-in takes a wall down", "drop-ins set nothing that the unit relies on", live=True)
def unit_no_weakening_dropin(site: Site) -> Iterator[Finding]:
    looked = []
    for unit in _units(site).values():
        for path in map(Path, unit.drop_in_paths.split()):
            looked.append(path.name)
            for line in (files.read(path) or "").splitlines():
                name, sign, _ = line.strip().partition("=")
                if sign and name.strip() in _WALLS:
                    yield Finding(
                        f"{path} sets {name.strip()}=",
                        "fail",
                        f"remove {name.strip()}= from {path}, then systemctl daemon-reload",
                    )
    _service(site)
    yield Finding(f"drop-ins: {', '.join(looked)}" if looked else "no drop-in")


@check("unit.reloaded", "systemd has read the units as they are", "no daemon-reload is due", live=True)
def unit_reloaded(site: Site) -> Iterator[Finding]:
    _service(site)
    for name, unit in _units(site).items():
        if unit.need_daemon_reload == "yes":
            yield Finding(
                f"{name} changed on disk since systemd read it", "fail", "systemctl daemon-reload, then optictl restart"
            )
    yield Finding("read as they are")


@check("socket.owner", "systemd holds the port", "the listening socket belongs to optillm-proxy.socket", live=True)
def socket_owner(site: Site) -> Iterator[Finding]:
    _service(site)
    socket = _units(site)[supervise.SOCKET]
    if not socket.active:
        yield Finding(f"{supervise.SOCKET} is {socket.active_state}", "fail", site.paths.command("start"))
        return
    port = site.config.listen.port
    listening = [one for one in processes.listeners() if one.port == port]
    if not listening:
        yield Finding(
            f"nothing listens on port {port}", "fail", site.paths.command("install"), "the socket unit names another port"
        )
        return
    if site.paths.scope == "system":
        held = processes.sockets_of(1)
        strangers = [f"{one.address}:{port}" for one in listening if one.inode not in held]
        if strangers:
            yield Finding(f"{', '.join(strangers)} is not systemd's socket", "fail", site.ours)
    yield Finding(f"{supervise.SOCKET} listens on port {port}")


@check("service.active", "The service runs", "active, its main process alive", live=True)
def service_active(site: Site) -> Iterator[Finding]:
    unit = _service(site)
    if unit.active_state == "active":
        yield Finding(f"active since {unit.active_enter_timestamp}")
        return
    cause = supervise.last_problem(Systemd(site.paths.scope))
    refused = unit.exec_main_status == "78"
    remedy = "mend what it names; it is started again by itself" if refused else site.paths.command("start")
    yield Finding(f"{unit.active_state} ({unit.sub_state}), result {unit.result}", "fail", remedy, cause)


@check(
    "service.restarts",
    "The service does not start over and over",
    f"at most {_MANY_RESTARTS} restarts of this activation",
    live=True,
)
def service_restarts(site: Site) -> Iterator[Finding]:
    unit = _service(site)
    if unit.restarts > _MANY_RESTARTS:
        cause = supervise.last_problem(Systemd(site.paths.scope))
        yield Finding(f"{unit.restarts} restarts", "fail", site.paths.command("logs --errors"), cause)
    yield Finding(f"{unit.restarts} restarts")


@check("service.current-release", "The service runs the release in force", "its main process works in that release", live=True)
def service_current_release(site: Site) -> Iterator[Finding]:
    unit = _service(site)
    if not unit.main_pid:
        raise Skip("the service does not run: see service.active")
    process = processes.look(unit.main_pid)
    if process is None or process.directory is None:
        raise Skip(f"process {unit.main_pid} cannot be looked into: run it with sudo")
    if process.directory != files.identity(site.release / "work"):
        yield Finding(
            f"process {unit.main_pid} runs another release than {site.release.name}", "fail", site.paths.command("restart")
        )
    yield Finding(f"process {unit.main_pid} runs {site.release.name}")


@check("service.exposure", "The walls are up", "systemd-analyze security: 0.2 at most when sealed, 1.0 on loopback", timeout=30)
def service_exposure(site: Site) -> Iterator[Finding]:
    if site.paths.scope != "system" or not Systemd("system").version():
        raise Skip("only units of the system's manager have walls")
    if files.facts(site.paths.service).kind == "missing":
        raise Skip(f"nothing is installed: run {site.paths.command('install')}")
    score = Systemd("system").exposure(site.paths.service)
    if score is None:
        raise Skip("this systemd-analyze cannot judge a unit file")
    limit = _EXPOSURE[render.is_sealed(site.config, site.paths)]
    if score > limit:
        yield Finding(f"exposure {score}, more than {limit}", "fail", site.paths.command("install"))
    yield Finding(f"exposure {score}")


@check("service.leftover", "No half-done restart or build is left", "no sibling unit, no half-built release")
def service_leftover(site: Site) -> Iterator[Finding]:
    for path in releases.half_built(site.paths):
        yield Finding(f"{path} is half-built", "warn", f"{site.paths.command('install')} removes it, or rm -r {path}")
    if not site.paths.is_private and (RUNTIME["system"] / f"{SIBLING}.service").exists():
        yield Finding(f"{SIBLING}.service is there", "warn", site.paths.command("restart"), "a restart was interrupted")
    yield Finding("none")


@check("credential.mode", "The service's secrets are its own", "the credential directory is closed to others", live=True)
def credential_mode(site: Site) -> Iterator[Finding]:
    _service(site)
    if site.paths.scope != "system":
        raise Skip("a user's manager keeps credentials below that user's own directory")
    directory = Path(f"/run/credentials/{NAME}.service")
    facts = files.facts(directory)
    if facts.kind == "missing":
        raise Skip("the service does not run: see service.active")
    if facts.mode & 0o077:
        yield Finding(f"the mode of {directory} is {facts.mode:04o}", "fail", "optictl restart")
    for name in ("proxy_key", "upstream_env"):
        path = directory / name
        mode = files.facts(path).mode
        # the group bits are the mask of the access list by which systemd lets the service's user in
        if mode & 0o007:
            yield Finding(f"the mode of {path} is {mode:04o}", "fail", "optictl restart")
    yield Finding(f"{directory} {facts.mode:04o}")


@check("relay.active", "The sealed service reaches its upstream", "optillm-proxy-upstream.socket listens", live=True)
def relay_active(site: Site) -> Iterator[Finding]:
    _service(site)
    if not render.is_sealed(site.config, site.paths):
        raise Skip("only a sealed service needs the relay")
    unit = _units(site)[f"{UPSTREAM}.socket"]
    if not unit.active:
        yield Finding(f"{UPSTREAM}.socket is {unit.active_state}", "fail", f"systemctl start {UPSTREAM}.socket")
    yield Finding("listening")
