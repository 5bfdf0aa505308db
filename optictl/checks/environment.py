"""Checks of the configuration, the environment and the keys."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from optictl.checks.engine import Finding, Skip, check
from optictl.deployment import model_names, remedies
from optictl.errors import ConfigError, MissingFact, OptictlError
from optictl.facts import config_file
from optictl.facts.deployment import Deployment
from optictl.guard import envfile, invariants
from optictl.host import files
from optictl.host.processes import Process


@check(
    "config.valid",
    "The configuration is valid",
    "every key known, every value allowed",
    fault="The configuration is not valid",
)
def config_valid(deployment: Deployment) -> Iterator[Finding]:
    """The configuration file is valid.

    How: parses and validates the file as every command does, and reports each problem with its
    line.
    Why: the other checks need a valid configuration; install, start and restart refuse an invalid
    one.
    """
    try:
        config_file.load(deployment.config_path)
    except ConfigError as invalid:
        lines = "; ".join(map(str, invalid.problems))
        yield Finding(
            lines,
            "fail",
            f"edit {deployment.config_path} there (all keys: optictl config schema)",
        )
        return
    except OptictlError as error:
        yield Finding(error.what, "fail", error.remedy)
        return
    if files.file_facts(deployment.config_path).kind == "missing":
        source = (
            f"the checks use the values of {deployment.hand_made.path}"
            if deployment.hand_made
            else "optictl uses the defaults"
        )
        yield Finding(
            f"{deployment.config_path} does not exist; {source}",
            "warn",
            deployment.paths.command("init"),
        )
    else:
        yield Finding(f"{deployment.config_path} is valid")


@check(
    "config.code-execution",
    "No strategy runs code that a model wrote",
    "no enabled strategy runs code, starts programs or opens addresses",
    fault="A strategy runs code that a model wrote",
    requires=("config.valid",),
)
def config_code_execution(deployment: Deployment) -> Iterator[Finding]:
    """Strategies that run code which a model wrote are enabled only with permission.

    How: compares the configured strategies with those of OptiLLM that run code, start programs or
    open addresses. Without `allow_code_execution: true` such a configuration is not valid, and
    config.valid names the strategy. With it, this check warns and names the strategy.
    Why: the sender of a prompt can choose what such a strategy does, with the rights of the
    service's user.
    """
    enabled = model_names.code_execution(deployment.config.strategies)
    for name, effect in enabled.items():
        yield Finding(
            f"{name} {effect}",
            "warn",
            f"if it is not needed, remove it from strategies in {deployment.config_path}",
        )
    if not enabled:
        allowed = "allowed" if deployment.config.allow_code_execution else "not allowed"
        yield Finding(f"{allowed}, and no enabled strategy does it")


@check(
    "env.readable",
    "systemd reads the whole env file",
    "systemd accepts every line",
    fault="systemd does not read the whole env file",
)
def env_readable(deployment: Deployment) -> Iterator[Finding]:
    """systemd accepts the whole env file, and every variable in it reaches the service.

    How: reads the file by the rules of systemd's EnvironmentFile=, as the guard and `optictl run`
    do. Values are never shown.
    Why: systemd silently ignores a line that begins with `export` and a line after a byte order
    mark. It rejects a whole file that is not UTF-8. The service then has no key, or does not start.
    """
    path = deployment.env_file
    content = files.read_bytes(path)
    if content is None:
        raise Skip(f"there is no env file {path}")
    problems = envfile.read(content).problems
    by_kind = remedies.by_kind(problems)
    steps = remedies.of_env_file(path, content)
    for kind in by_kind:
        places = ", ".join(
            f"line {p.line}" + (f" ({p.name})" if p.name else "") for p in by_kind[kind]
        )
        # only the first finding names the file and the steps, which fix all kinds
        first = kind == next(iter(by_kind))
        remedy = " && ".join([*steps, deployment.restart]) if first else ""
        yield Finding(
            f"{f'{path}, ' if first else ''}{places}: {envfile.WORDS[kind]}", "fail", remedy
        )
    if not problems:
        yield Finding(f"systemd reads all of {path}")


@check(
    "env.forbidden",
    "No variable switches OptiLLM to another provider",
    "none in the env file, in systemd's environment or in the live process",
    fault="An environment variable changes where OptiLLM sends prompts or how it works",
)
def env_forbidden(deployment: Deployment) -> Iterator[Finding]:
    """No environment variable redirects OptiLLM or changes its defaults.

    How: compares variable names (never values) with the guard's list of forbidden ones. It reads
    the env file, the environment that systemd gives to every service, and /proc/PID/environ of the
    processes that serve the port.
    Why: OPTILLM_API_KEY switches OptiLLM to local inference and CEREBRAS_API_KEY to another
    provider, both silently. The guard refuses to start with them.
    """
    live = _readable_processes(deployment)
    places = [*_files(deployment), *_manager(deployment), *_processes(deployment, live)]
    if not places:
        raise Skip("there is no env file and no live process")
    in_live = {name for p in live for name in invariants.forbidden_variables(p.environ or ())}
    for place in places:
        for variable, effect in invariants.forbidden_variables(place.variables).items():
            remedy = place.unset(variable)
            # a process without the variable need not restart
            if place.needs_restart and (not live or variable in in_live):
                remedy = f"{remedy} && {deployment.restart}"
            what = f"{variable} is set in {place.name}"
            yield Finding(what, "fail", remedy, f"it {effect}", place.is_alone)
    yield Finding(f"none in {', '.join(place.name for place in places)}")


@dataclass(frozen=True)
class _Place:
    """A place that sets environment variables. `unset` is the fix for one of them, by its name.

    `needs_restart`: a process that has the variable keeps it until it restarts.
    """

    name: str
    variables: Collection[str]
    unset: Callable[[str], str]
    needs_restart: bool = False
    is_alone: bool = False


def _readable_processes(deployment: Deployment) -> list[Process]:
    """The processes that serve the port, if their environment can be read."""
    try:
        return [p for p in deployment.live.processes if p.environ is not None]
    except MissingFact:
        return []


def _files(deployment: Deployment) -> Iterator[_Place]:
    for name, path, variables in _sources(deployment):
        unset = partial(remedies.unset, path) if path else lambda _: deployment.take_over
        yield _Place(name, variables, unset, path is not None, deployment.is_alone)


def _manager(deployment: Deployment) -> Iterator[_Place]:
    flags = "--user " if deployment.paths.scope == "user" else ""
    try:
        variables = deployment.manager_environment
    except MissingFact:
        return
    yield _Place(
        "systemd's environment",
        variables,
        lambda variable: f"systemctl {flags}unset-environment {variable}",
        needs_restart=True,
    )


def _processes(deployment: Deployment, live: Sequence[Process]) -> Iterator[_Place]:
    for process in live:
        environ = process.environ or ()
        yield _Place(f"process {process.pid}", environ, lambda _: deployment.restart)


def _sources(deployment: Deployment) -> list[tuple[str, Path | None, list[str]]]:
    """(place as text, its file or None, the names of the variables set there) of every place."""
    service = deployment.hand_made
    if service is None:
        path = deployment.paths.env
        return [] if files.read(path) is None else [(str(path), path, list(deployment.env))]
    places: dict[str, list[str]] = {str(path): [] for path in service.env_files}
    for name in deployment.env:
        places.setdefault(service.where[name], []).append(name)
    return [
        (place, Path(place) if place.startswith("/") else None, names)
        for place, names in places.items()
    ]


@check(
    "env.upstream-key",
    "OptiLLM has a key for LiteLLM",
    "OPENAI_API_KEY is set",
    fault="OptiLLM has no key for LiteLLM",
    explained_by=("env.readable",),
)
def env_upstream_key(deployment: Deployment) -> Iterator[Finding]:
    """The env file holds a key for calls from OptiLLM to LiteLLM.

    How: OPENAI_API_KEY in the env file is not empty. upstream.base-model tests whether LiteLLM
    accepts it.
    Why: without the key OptiLLM ignores --base-url and sends prompts to other providers.
    """
    path = deployment.env_file
    remedy = (
        f"write the line OPENAI_API_KEY=<a key of LiteLLM> into {path}, then {deployment.restart}"
    )
    if deployment.hand_made is not None and deployment.env.get("OPENAI_API_KEY", "").strip():
        yield Finding(f"set in {deployment.hand_made.where['OPENAI_API_KEY']}")
    elif deployment.hand_made is None and files.file_facts(path).kind == "missing":
        yield Finding(
            f"{path} does not exist", "fail", f"{deployment.paths.command('init')}, then {remedy}"
        )
    elif not deployment.env.get("OPENAI_API_KEY", "").strip():
        yield Finding(
            f"OPENAI_API_KEY is empty in {path}",
            "fail",
            remedy,
            "without it OptiLLM ignores --base-url and sends prompts to other providers",
        )
    else:
        yield Finding(f"set in {path}")


@check(
    "key.strength",
    "The proxy key protects the port",
    f"at least {invariants.MIN_KEY_LENGTH} characters, not beginning with sk-",
    fault="The proxy key does not protect the port",
)
def key_strength(deployment: Deployment) -> Iterator[Finding]:
    """The proxy key exists, is hard to guess, and is not one that OptiLLM forwards.

    How: applies the guard's rules for length, variety and first letters to the proxy_key file. The
    key is never shown.
    Why: only this key keeps other local users out. OptiLLM sends a client's key that begins with
    sk- upstream, in place of OPENAI_API_KEY.
    """
    if deployment.hand_made is not None:
        yield from _hand_made_key(deployment)
        return
    path = deployment.paths.proxy_key
    remedy = f"rm -f {path} && {deployment.paths.command('init')} && {deployment.restart}"
    if files.file_facts(path).kind == "missing":
        yield Finding(
            f"{path} does not exist",
            "fail",
            remedy,
            "LiteLLM also needs the new key, as LITELLM_OPTILLM_KEY",
        )
        return
    upstream_key = (
        envfile.read(files.read_bytes(deployment.paths.env) or b"")
        .variables.get("OPENAI_API_KEY", "")
        .strip()
    )
    weakness = invariants.key_weakness(deployment.proxy_key, upstream_key)
    if weakness:
        yield Finding(
            f"the key in {path} {weakness}",
            "fail",
            remedy,
            "LiteLLM also needs the new key, as LITELLM_OPTILLM_KEY",
        )
    else:
        yield Finding("strong")


def _hand_made_key(deployment: Deployment) -> Iterator[Finding]:
    """The key that a hand-made unit gives to OptiLLM."""
    assert deployment.hand_made is not None
    weakness = invariants.key_weakness(
        deployment.proxy_key, deployment.env.get("OPENAI_API_KEY", "").strip()
    )
    if weakness:
        yield Finding(
            f"the key of {deployment.hand_made.path} {weakness}",
            "fail",
            deployment.take_over,
            "LiteLLM also needs the new key, as LITELLM_OPTILLM_KEY",
            True,
        )
    else:
        yield Finding("strong")


@check(
    "key.not-in-argv",
    "No key is in an argument list",
    "the key is passed by reference (@FILE)",
    fault="A key is in an argument list, where every local user can read it",
    live=True,
    requires=("config.valid", "socket.owner"),
    explained_by=("unit.matches", "unit.no-weakening-dropin", "process.guarded"),
)
def key_not_in_argv(deployment: Deployment) -> Iterator[Finding]:
    """Neither the proxy key nor LiteLLM's key is visible in the list of processes.

    How: searches /proc/PID/cmdline of the processes that serve the port for both keys and for a
    literal --optillm-api-key.
    Why: every local user can read argument lists, and only the key protects the port from them.
    """
    secrets = {value for value in _secrets(deployment) if value}
    for process in deployment.live.processes:
        words = [word.partition("=")[2] or word for word in process.argv]
        flags = dict(zip(process.argv, process.argv[1:], strict=False))
        literal = flags.get("--optillm-api-key", "")
        in_flag = any(
            w.startswith("--optillm-api-key=") and not w.startswith("--optillm-api-key=@")
            for w in process.argv
        )
        if (literal and not literal.startswith("@")) or in_flag or secrets.intersection(words):
            yield Finding(
                f"a key is in the argument list of process {process.pid}",
                "fail",
                deployment.rebuild,
                "every local user can read /proc/PID/cmdline",
                deployment.is_alone,
            )
    yield Finding(f"none in process {deployment.live.pids}")


def _secrets(deployment: Deployment) -> Iterator[str]:
    for name in ("proxy_key", "upstream_key"):
        try:
            yield getattr(deployment, name)
        except (MissingFact, PermissionError):
            continue
