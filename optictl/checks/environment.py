"""Configuration, environment and keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from optictl.checks.engine import Finding, Skip, check
from optictl.deployment import model_names, remedies
from optictl.errors import ConfigError, MissingFact, OptictlError
from optictl.facts import config_file
from optictl.facts.deployment import Deployment
from optictl.guard import envfile, invariants
from optictl.host import files


@check(
    "config.valid",
    "The configuration can be used",
    "every key known, every value allowed",
    fault="The configuration cannot be used",
)
def config_valid(deployment: Deployment) -> Iterator[Finding]:
    """The configuration file says something that optictl can act on.

    How: it is parsed and judged whole, as every command does; each problem is told with its line.
    Why: no other check knows what to expect without it, and install, start and restart refuse to work.
    """
    try:
        config_file.load(deployment.config_path)
    except ConfigError as invalid:
        lines = "; ".join(map(str, invalid.problems))
        yield Finding(
            lines,
            "fail",
            f"edit {deployment.config_path} there; optictl config schema says what may stand in it",
        )
        return
    except OptictlError as error:
        yield Finding(error.what, "fail", error.remedy)
        return
    if files.file_facts(deployment.config_path).kind == "missing":
        judged = (
            f"the values of {deployment.hand_made.path} are judged"
            if deployment.hand_made
            else "the defaults are used"
        )
        yield Finding(
            f"no {deployment.config_path}: {judged}", "warn", deployment.paths.command("init")
        )
    else:
        yield Finding(f"{deployment.config_path} is valid")


@check(
    "config.code-execution",
    "No model's code is run without permission",
    "no enabled strategy runs code, starts programs or opens addresses",
    fault="A strategy runs what a model wrote",
    requires=("config.valid",),
)
def config_code_execution(deployment: Deployment) -> Iterator[Finding]:
    """Every enabled strategy that runs code which a model wrote is named, and has the operator's permission.

    How: the configuration's strategies are compared with those of OptiLLM that run code, start programs or open
    addresses. A configuration that enables one without `allow_code_execution: true` is not valid, and config.valid names
    it; with the permission this check warns and names it.
    Why: whoever can send a prompt can choose what such a strategy does, with the rights of the service's user.
    """
    enabled = model_names.code_execution(deployment.config.strategies)
    for name, what in enabled.items():
        yield Finding(
            f"{name} {what}",
            "warn",
            f"if nobody needs it, remove it from strategies in {deployment.config_path}",
        )
    if not enabled and deployment.config.allow_code_execution:
        yield Finding("allowed, and no enabled strategy does it")
    elif not enabled:
        yield Finding("not allowed, and no enabled strategy does it")


@check(
    "env.readable",
    "The env file is read as it is meant",
    "systemd takes every line of it",
    fault="The env file is not read as it is meant",
)
def env_readable(deployment: Deployment) -> Iterator[Finding]:
    """systemd takes the whole env file, and every variable in it reaches the service.

    How: the file is read by the rules of systemd's EnvironmentFile=, which the guard and `optictl run` use too. Values are
    never shown.
    Why: systemd ignores a line that begins with `export` and one behind a byte order mark, without an error, and refuses
    a whole file that is not UTF-8: the service has no key then, or does not start.
    """
    path = deployment.env_file
    content = files.read_bytes(path)
    if content is None:
        raise Skip(f"there is no {path}")
    problems = envfile.read(content).problems
    alike = remedies.by_kind(problems)
    steps = remedies.of_env_file(path, content)
    for kind in alike:
        places = ", ".join(
            f"line {p.line}" + (f" ({p.name})" if p.name else "") for p in alike[kind]
        )
        # the file and the steps, which belong together, stand once
        first = kind == next(iter(alike))
        remedy = " && ".join([*steps, deployment.restart]) if first else ""
        yield Finding(
            f"{f'{path}, ' if first else ''}{places}: {envfile.WORDS[kind]}", "fail", remedy
        )
    if not problems:
        yield Finding(f"all of {path}")


@check(
    "env.forbidden",
    "No variable switches OptiLLM to another provider",
    "none in the env file, in systemd's own environment or in the live process",
    fault="A variable changes where OptiLLM sends prompts or how it works",
)
def env_forbidden(deployment: Deployment) -> Iterator[Finding]:
    """No environment variable redirects OptiLLM or changes its defaults.

    How: the names (never the values) in the env file, in the environment that systemd gives to every service, and in
    /proc/PID/environ of what serves the port are compared with a list that the guard uses too.
    Why: OPTILLM_API_KEY switches OptiLLM to local inference and CEREBRAS_API_KEY to another provider, both without a
    word; the guard refuses to start with them.
    """
    looked = []
    try:
        live = [p for p in deployment.live.processes if p.environ is not None]
    except MissingFact:
        live = []
    carried = {name for p in live for name in invariants.forbidden_variables(p.environ or ())}

    def mend(command: str, name: str) -> str:
        # a process that started before the variable was there can stay
        return command if live and name not in carried else f"{command} && {deployment.restart}"

    for place, path, names in _sources(deployment):
        looked.append(place)
        for name, effect in invariants.forbidden_variables(names).items():
            remedy = mend(remedies.unset(path, name), name) if path else deployment.take_over
            yield Finding(
                f"{name} is set in {place}", "fail", remedy, f"it {effect}", deployment.is_alone
            )
    try:
        names = deployment.manager_environment
        looked.append("systemd's environment")
        for name, effect in invariants.forbidden_variables(names).items():
            flags = "--user " if deployment.paths.scope == "user" else ""
            remedy = mend(f"systemctl {flags}unset-environment {name}", name)
            yield Finding(
                f"{name} is set in systemd's own environment", "fail", remedy, f"it {effect}"
            )
    except MissingFact:
        pass
    for process in live:
        looked.append(f"process {process.pid}")
        for name, effect in invariants.forbidden_variables(process.environ or ()).items():
            yield Finding(
                f"{name} in the environment of process {process.pid}",
                "fail",
                deployment.restart,
                f"it {effect}",
            )
    if not looked:
        raise Skip("there is no env file and no live process")
    yield Finding(f"none in {', '.join(looked)}")


def _sources(deployment: Deployment) -> list[tuple[str, Path | None, list[str]]]:
    """(where variables are set in words, the file if it is one, their names), place by place."""
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
    """The env file holds a key with which OptiLLM may call LiteLLM.

    How: OPENAI_API_KEY in the env file is not empty. Whether LiteLLM takes it is for upstream.base-model to see.
    Why: without it OptiLLM ignores --base-url and leaves through a library of its own.
    """
    path = deployment.env_file
    put = f"write the line OPENAI_API_KEY=<a key of LiteLLM> into {path}, then {deployment.restart}"
    if deployment.hand_made is not None and deployment.env.get("OPENAI_API_KEY", "").strip():
        yield Finding(f"set in {deployment.hand_made.where['OPENAI_API_KEY']}")
    elif deployment.hand_made is None and files.file_facts(path).kind == "missing":
        yield Finding(
            f"there is no {path}", "fail", f"{deployment.paths.command('init')}, then {put}"
        )
    elif not deployment.env.get("OPENAI_API_KEY", "").strip():
        yield Finding(
            f"OPENAI_API_KEY is empty in {path}",
            "fail",
            put,
            "without it OptiLLM ignores --base-url and leaves through a library of its own",
        )
    else:
        yield Finding(f"set in {path}")


@check(
    "key.strength",
    "The proxy key can protect the port",
    f"at least {invariants.MIN_KEY_LENGTH} characters, not beginning with sk-",
    fault="The proxy key cannot protect the port",
)
def key_strength(deployment: Deployment) -> Iterator[Finding]:
    """The key that LiteLLM must send is there, hard to guess, and not one that OptiLLM would hand on.

    How: the length, the variety and the first letters of the proxy_key file, by the guard's own rule; the key is shown
    nowhere.
    Why: it is all that keeps the other users of this machine out, and OptiLLM sends a key that begins with sk- upstream
    in place of its own.
    """
    if deployment.hand_made is not None:
        yield from _hand_made_key(deployment)
        return
    path = deployment.paths.proxy_key
    remedy = f"rm -f {path} && {deployment.paths.command('init')} && {deployment.restart}"
    if files.file_facts(path).kind == "missing":
        yield Finding(
            f"there is no {path}",
            "fail",
            remedy,
            "LiteLLM needs the new key too, as LITELLM_OPTILLM_KEY",
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
            "LiteLLM needs the new key too, as LITELLM_OPTILLM_KEY",
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
        found = f"the key of {deployment.hand_made.path} {weakness}"
        yield Finding(
            found,
            "fail",
            deployment.take_over,
            "LiteLLM needs the new key too, as LITELLM_OPTILLM_KEY",
            True,
        )
    else:
        yield Finding("strong")


@check(
    "key.not-in-argv",
    "No secret stands in an argument list",
    "the key is passed by reference (@FILE)",
    fault="A key stands in an argument list, where every local user can read it",
    live=True,
    requires=("config.valid", "socket.owner"),
    explained_by=("unit.matches", "unit.no-weakening-dropin", "process.guarded"),
)
def key_not_in_argv(deployment: Deployment) -> Iterator[Finding]:
    """Neither the proxy key nor LiteLLM's key can be seen in a list of processes.

    How: /proc/PID/cmdline of what serves the port is searched for both keys and for a literal --optillm-api-key.
    Why: every local user may read it, and the key is all that protects the port from them.
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
                f"a key stands in the argument list of process {process.pid}",
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
