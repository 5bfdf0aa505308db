"""What would make an installation fail, reported before anything is built or stopped.

`read_facts` gathers facts, `judge` decides from them alone. Each problem is a `Result` with its own
id (`preflight.port`), so people and programs see it as they see a check.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optictl.deployment import remedies, render
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import Blocked
from optictl.guard import envfile, invariants
from optictl.host import files, processes
from optictl.host.systemd import (
    LAST_PROTECTION,
    OLDEST_SUPPORTED,
    PROTECTIONS,
    Systemd,
    socket_proxyd,
)
from optictl.releases import interpreters
from optictl.releases.interpreters import Choice
from optictl.results import Result

#: profile -> MB that a release of it takes, its bytecode compiled (measured with CPython 3.10 to
#: 3.14).
RELEASE_MB = {"proxy": 400, "full": 7500}
#: Directives with which a drop-in makes another service of the unit.
_OVERRIDING = ("DynamicUser", "ExecStart", "Type", "User")


#: The problems that keep a release from being built, whatever is started afterwards.
OF_A_BUILD = ("preflight.interpreter", "preflight.directory", "preflight.mount", "preflight.room")


@dataclass(frozen=True)
class Holder:
    """What listens on the port now. `unit` is systemd's name for it, "" for a program outside
    its services.
    """

    pid: int
    unit: str
    program: str


@dataclass(frozen=True)
class Secrets:
    """What the operator's files say. Each is None where it may not be read, "" where there is no
    file.

    `problems` are those of the env file, for which the guard does not start; `commands` fix all of
    them.
    """

    variables: Mapping[str, str] | None
    proxy_key: str | None
    problems: Sequence[str] = ()
    commands: Sequence[str] = ()

    def __repr__(self) -> str:
        return "Secrets(...)"


@dataclass(frozen=True)
class MachineFacts:
    """What an installation depends on besides the configuration.

    `systemd` is its version, 0 where it does not run this deployment. `choice` is None where
    nothing has to be built. `closed` is a directory that the service's user cannot enter, `mount`
    the file system's options that forbid a release there, `free` the bytes that are free there
    (None: unknown).
    """

    systemd: int
    socket_proxyd: Path | None
    choice: Choice | None
    closed: Path | None
    mount: str
    mount_point: Path
    free: int | None
    holders: Sequence[Holder]
    secrets: Secrets
    manager_variables: Sequence[str]
    drop_ins: Mapping[Path, Sequence[str]]


def read_facts(
    config: Config,
    paths: Paths,
    *,
    builds: bool,
    starts: bool,
    python: Path | None,
    own_units: Sequence[str],
    drop_ins: Sequence[Path],
) -> MachineFacts:
    """Read the facts. Nothing is changed.

    `builds`: a release has to be built, on `python` where one was named. `starts`: systemd will
    start the service. `own_units` may hold the port; `drop_ins` are those that stay beside the
    unit.
    """
    systemd = Systemd(paths.scope)
    others = others_must_reach(paths)
    ground = _existing(paths.releases)
    room = files.free_space(ground)
    return MachineFacts(
        systemd=systemd.version() if starts else 0,
        socket_proxyd=socket_proxyd(),
        choice=interpreters.choose(paths, others, python) if builds else None,
        closed=files.closed_to_others([ground, _existing(paths.home)]) if others else None,
        mount=files.forbids_programs(ground),
        mount_point=files.mount_point(ground),
        free=room.bytes if room is not None else None,
        holders=_holders(config.listen.port, systemd, own_units) if starts else (),
        secrets=_secrets(paths),
        manager_variables=systemd.environment() if starts else (),
        drop_ins={path: _directives(path) for path in drop_ins} if starts else {},
    )


def others_must_reach(paths: Paths) -> bool:
    """Whether the service's user is not the user who installs."""
    return paths.scope == "system" and os.geteuid() == 0


def _existing(path: Path) -> Path:
    """The path, or the nearest directory above it that is there."""
    return next(part for part in (path, *path.parents) if part.exists())


def _secrets(paths: Paths) -> Secrets:
    def text(path: Path) -> str | None:
        try:
            return files.read(path) or ""
        except PermissionError:
            return None

    key = text(paths.proxy_key)
    try:
        content = files.read_bytes(paths.env) or b""
    except PermissionError:
        return Secrets(None, None)
    env = envfile.read(content)
    problems = [str(problem) for problem in env.problems]
    commands = remedies.of_env_file(paths.env, content)
    return Secrets(env.variables, None if key is None else key.strip(), problems, commands)


def _holders(port: int, systemd: Systemd, own_units: Sequence[str]) -> list[Holder]:
    """Who listens on the port, this deployment's own units left out."""
    listening = {listener.inode for listener in processes.listeners() if listener.port == port}
    if not listening:
        return []
    holders = []
    for pid in processes.owners(listening):
        unit_of = processes.own_service_of if systemd.scope == "user" else processes.service_of
        process, unit = processes.read_process(pid), unit_of(pid) or ""
        program = process.argv[0] if process is not None and process.argv else ""
        holders.append(Holder(pid, unit, program))
    for unit in systemd.listening_sockets(port):
        holders.append(Holder(1, unit, "systemd"))
    if not holders:  # another user's or a container's
        holders.append(Holder(0, "", ""))
    return [holder for holder in holders if holder.unit not in own_units]


def _directives(path: Path) -> list[str]:
    """The names of the overriding directives in a drop-in."""
    lines = (line.partition("=")[0].strip() for line in (files.read(path) or "").splitlines())
    return [name for name in dict.fromkeys(lines) if name in _OVERRIDING]


def judge(
    config: Config, paths: Paths, facts: MachineFacts, *, starts: bool, secrets_come: bool
) -> list[Result]:
    """Every problem, the blocking ones (`fail`) first. Pure.

    `starts`: the service is started at the end; otherwise its secrets may still be missing.
    `secrets_come`: the caller writes them before it installs.
    """
    problems = [
        *_systemd(config, paths, facts),
        *_interpreter(paths, facts),
        *_place(config, paths, facts),
        *_port(config, paths, facts),
        *([] if secrets_come else _of_secrets(paths, facts, blocking=starts)),
        *_drop_ins(paths, facts),
    ]
    return sorted(problems, key=lambda result: not result.failed)


def _problem(id: str, title: str, found: str, remedy: str, *, blocking: bool = True) -> Result:
    return Result(
        id=f"preflight.{id}",
        title=title,
        status="fail" if blocking else "warn",
        found=found,
        remedy=remedy,
    )


def _systemd(config: Config, paths: Paths, facts: MachineFacts) -> Iterator[Result]:
    version = facts.systemd
    if not version:
        return
    if version < OLDEST_SUPPORTED:
        yield too_old(version)
    missing = [what for since, what in PROTECTIONS.items() if version < since <= LAST_PROTECTION]
    if missing and version >= OLDEST_SUPPORTED:
        yield _problem(
            "protections",
            "systemd has every protection of the units",
            f"systemd {version} does not have {', '.join(missing)}: the units leave it out",
            "",
            blocking=False,
        )
    if render.is_sealed(config, paths) and facts.socket_proxyd is None:
        yield _problem(
            "socket-proxyd",
            "The relay to the upstream has its program",
            "this machine has no systemd-socket-proxyd, "
            "which a sealed service needs to reach its upstream",
            "install the package of systemd that has it, "
            f"or write isolation: loopback into {paths.config}",
        )


def too_old(version: int) -> Result:
    """This systemd cannot run the service."""
    return _problem(
        "systemd",
        "systemd can run the service",
        f"systemd {version} cannot give a service its secrets as credentials; "
        f"version {OLDEST_SUPPORTED} and later can",
        "upgrade this machine's distribution, or run the service without systemd: "
        "optictl init --root DIR, then optictl install --root DIR, then optictl run --root DIR",
    )


def refuse_old_systemd(paths: Paths) -> None:
    """Raise OptictlError where systemd runs this deployment's scope and cannot run the service."""
    if paths.is_private:
        return
    systemd = Systemd(paths.scope)
    if systemd.available() and systemd.version() < OLDEST_SUPPORTED:
        problem = too_old(systemd.version())
        raise Blocked(problem.found, remedy=problem.remedy)


def _interpreter(paths: Paths, facts: MachineFacts) -> Iterator[Result]:
    choice = facts.choice
    if choice is None or choice.interpreter is not None:
        return
    yield _problem(
        "interpreter",
        "There is a Python to build the release on",
        "; ".join([choice.problem, *choice.passed_over]),
        choice.remedy,
    )


def _place(config: Config, paths: Paths, facts: MachineFacts) -> Iterator[Result]:
    title = "The service can use the directory of its release"
    if facts.closed is not None:
        at = shlex.quote(str(facts.closed))
        found = f"the user of the service cannot enter {facts.closed}"
        yield _problem("directory", title, found, f"chmod o+x {at}")
    if facts.mount:
        at = shlex.quote(str(facts.mount_point))
        option = {"noexec": "exec", "read-only": "rw"}[facts.mount]
        found = f"the file system at {facts.mount_point} is mounted {facts.mount}"
        remedy = f"mount -o remount,{option} {at}"
        yield _problem("mount", title, f"{found}: no release can run from it", remedy)
    needed = RELEASE_MB[config.optillm.profile]
    if facts.choice is not None and facts.free is not None and facts.free < needed * 10**6:
        free = facts.free // 10**6
        yield _problem(
            "room",
            "There is room for the release",
            f"{free} MB are free at {facts.mount_point}, a release takes about {needed} MB",
            "free some space; this shows what uses it: "
            f"du -xh {facts.mount_point} | sort -h | tail",
        )


def _port(config: Config, paths: Paths, facts: MachineFacts) -> Iterator[Result]:
    port = config.listen.port
    for holder in facts.holders:
        if holder.unit:
            whose = f"{holder.unit} (process {holder.pid})" if holder.pid > 1 else holder.unit
            user = "--user " if paths.scope == "user" else ""
            remedy = f"systemctl {user}disable --now {holder.unit}"
        elif holder.pid:
            whose = f"process {holder.pid} ({holder.program})"
            remedy = f"kill {holder.pid}"
        else:
            whose = "a program that cannot be seen from here"
            remedy = f"ss -ltnp 'sport = :{port}' shows it, as root; stop it"
        yield _problem(
            "port",
            "The port is free",
            f"{whose} listens on port {port}",
            f"{remedy}; or write another listen.port into {paths.config}",
        )


def _of_secrets(paths: Paths, facts: MachineFacts, *, blocking: bool) -> Iterator[Result]:
    secrets = facts.secrets
    if secrets.variables is None or secrets.proxy_key is None:
        yield _problem(
            "secrets",
            "The secrets can be checked",
            f"no permission to read {paths.env} or {paths.proxy_key}: they were not checked",
            "run it with sudo",
            blocking=False,
        )
        return
    if secrets.problems:
        yield _problem(
            "env",
            "systemd reads the env file as it is meant",
            f"{paths.env}, {'; '.join(secrets.problems)}",
            " && ".join(secrets.commands),
            blocking=blocking,
        )
    yield from _forbidden_variables(paths, facts, secrets.variables, blocking=blocking)
    upstream_key = secrets.variables.get("OPENAI_API_KEY", "").strip()
    if not upstream_key:
        yield _problem(
            "upstream-key",
            "OptiLLM has a key for LiteLLM",
            f"OPENAI_API_KEY is not set in {paths.env}",
            f"write the line OPENAI_API_KEY=<a key of LiteLLM> into {paths.env}",
            blocking=blocking,
        )
    yield from _weak_proxy_key(paths, secrets.proxy_key, upstream_key, blocking=blocking)


def _forbidden_variables(
    paths: Paths, facts: MachineFacts, variables: Mapping[str, str], *, blocking: bool
) -> Iterator[Result]:
    """Variables of the env file and of systemd's environment that the guard does not start with."""
    title = "No variable switches OptiLLM to another provider"
    for name, effect in sorted(invariants.forbidden_variables(variables).items()):
        found = f"{name} is set in {paths.env}: it {effect}"
        remedy = remedies.unset(paths.env, name)
        yield _problem("variable", title, found, remedy, blocking=blocking)
    user = "--user " if paths.scope == "user" else ""
    for name, effect in sorted(invariants.forbidden_variables(facts.manager_variables).items()):
        found = f"{name} is set in systemd's environment: it {effect}"
        remedy = f"systemctl {user}unset-environment {name}"
        yield _problem("variable", title, found, remedy, blocking=blocking)


def _weak_proxy_key(
    paths: Paths, proxy_key: str, upstream_key: str, *, blocking: bool
) -> Iterator[Result]:
    # without a file the installation makes a strong one
    weakness = invariants.key_weakness(proxy_key, upstream_key) if proxy_key else None
    if weakness:
        key = shlex.quote(str(paths.proxy_key))
        yield _problem(
            "proxy-key",
            "The proxy key can protect the port",
            f"the key in {paths.proxy_key} {weakness}",
            f"rm {key} && {paths.command('init')} makes a new one; "
            f"give it to LiteLLM too, as {render.LITELLM_KEY_VARIABLE}",
            blocking=blocking,
        )


def foreground(paths: Paths, pid: int, end: str) -> Result:
    """A process outside systemd serves the active release. `end` is the command that ends it."""
    return _problem(
        "foreground",
        "No process outside systemd serves the active release",
        f"process {pid} serves this deployment in the foreground; "
        "an upgrade cannot restart it, and it would continue with the active release",
        f"{end}, then run the command again, then {paths.command('run')}",
    )


def older(version: str, active: str, remedy: str) -> Result:
    """The version to upgrade to is older than the active one."""
    return _problem(
        "older",
        "The version is not older than the active one",
        f"OptiLLM {version} is older than {active}, which is active",
        remedy,
        blocking=False,
    )


def _drop_ins(paths: Paths, facts: MachineFacts) -> Iterator[Result]:
    for path, names in facts.drop_ins.items():
        if names:
            at = shlex.quote(str(path))
            yield _problem(
                "drop-in",
                "No drop-in makes another service of the unit",
                f"{path} sets {', '.join(f'{name}=' for name in names)}",
                f"mv {at} {at}.off",
            )
