"""What a deployment cannot keep of a hand-made service, part by part. Pure."""

from __future__ import annotations

import re
import shlex

from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.guard import invariants
from optictl.takeover.handmade import HandMade, redacted
from optictl.takeover.taken import NotTaken
from optictl.takeover.taken_keys import OUTPUT

#: Variables without a meaning for a deployment.
_OF_NO_ACCOUNT = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|PWD|TERM|LANG|LC_\w+|TZ"
    r"|VIRTUAL_ENV|PYTHON\w*|XDG_\w+|UV_\w+|TMPDIR|_"
)
#: Field -> variables whose values become settings.
_AS_SETTINGS = {
    "port": ("OPTILLM_PORT",),
    "base_url": ("OPTILLM_BASE_URL", "OPENAI_BASE_URL"),
    "model": ("OPTILLM_MODEL",),
    "approach": ("OPTILLM_APPROACH",),
    "proxy_key": ("OPTILLM_API_KEY",),
    "host": ("OPTILLM_HOST",),
}


def variables(service: HandMade, paths: Paths) -> list[NotTaken]:
    """Variables that the guard forbids, those that a deployment does not set, and unknown ones."""
    not_taken = [
        problem
        for name in service.environment
        if (problem := _variable(name, service, paths)) is not None
    ]
    return not_taken + [
        NotTaken(
            f"variable {name}", "PassEnvironment= passes it from systemd; its value is not known"
        )
        for name in service.passed
    ]


def _variable(name: str, service: HandMade, paths: Paths) -> NotTaken | None:
    """Why a deployment does not have this variable. None where it has, or where nothing is lost."""
    place = service.where.get(name, "")
    stays = place == str(paths.env)
    if reason := invariants.forbidden_variables(service.environment).get(name):
        return _forbidden(name, reason, service, place if stays else "")
    if not place or stays or name == "OPENAI_API_KEY" or _OF_NO_ACCOUNT.fullmatch(name):
        return None
    if f"{{{name}}}" in service.text or f"${name}" in service.text:
        return None  # a flag uses its value
    return NotTaken(
        f"variable {name}", "the environment of a deployment has only optictl's variables"
    )


def _forbidden(name: str, reason: str, service: HandMade, env_file: str) -> NotTaken:
    """A variable with which the guard does not start. `env_file`: the deployment's, with it in."""
    why = f"it {reason}"
    fields = [field for field, names in _AS_SETTINGS.items() if name in names]
    if any(service.where.get(field, "").startswith(name) for field in fields):
        why += "; its value becomes a setting"
    if not env_file:
        return NotTaken(f"variable {name}", why)
    line = rf"/^\s*(export\s+)?{name}\s*=/d"
    return NotTaken(
        f"variable {name}",
        f"{why}; the guard does not start while {env_file} has it",
        f"sed -i -E {shlex.quote(line)} {shlex.quote(env_file)}",
    )


#: Flag -> (the reason why it is not kept, the replacement).
_FLAGS: dict[str, tuple[str, str]] = {
    "--log": ("OptiLLM's debug log has prompts and keys; the guard logs one line per request", ""),
    "--log-conversations": (
        "a deployment writes no prompts to disk",
        "optictl trace shows one request, call by call",
    ),
    "--conversation-log-dir": (
        "a deployment writes no prompts to disk",
        "optictl trace shows one request, call by call",
    ),
    "--launch-gui": ("OptiLLM would start a web page instead of the proxy", ""),
    "--plugins-dir": (
        "it has no effect in OptiLLM 0.3.12",
        "list plugin files in plugins: of optictl.yaml",
    ),
    "--batch-mode": ("the guard has its own limits", "limits.max_in_flight in optictl.yaml"),
    "--batch-size": ("the guard has its own limits", "limits.max_in_flight in optictl.yaml"),
    "--batch-wait-ms": ("the guard has its own limits", "limits.max_in_flight in optictl.yaml"),
    "--ssl-verify": ("the upstream is LiteLLM on this machine", ""),
    "--no-ssl-verify": ("certificates are always verified; LiteLLM on this machine needs none", ""),
    "--ssl-cert-path": ("the upstream is LiteLLM on this machine", ""),
    "--return-full-response": ("the guard has no such switch", ""),
}
_TUNING = re.compile(r"--(n|best-of-n|mcts-\w+|rstar-[\w-]+|cepo_\w+)")


def flags(service: HandMade, _: Paths) -> list[NotTaken]:
    not_taken = []
    for flag in service.extra_flags:
        why, remedy = _FLAGS.get(flag, ("OptiLLM 0.3.12 has no such flag", ""))
        if _TUNING.fullmatch(flag):
            why = "a deployment runs each strategy with OptiLLM's default"
        not_taken.append(NotTaken(flag, why, remedy))
    return not_taken


def providers(service: HandMade, _: Paths) -> list[NotTaken]:
    not_taken = []
    own = service.own_providers
    for provider in service.providers:
        if provider not in own:
            why = "a deployment calls LiteLLM only"
            remedy = "add its models to model_list of LiteLLM"
            not_taken.append(
                NotTaken(f"provider {provider.name} ({redacted(provider.base_url)})", why, remedy)
            )
        for name, target in provider.model_map.items():
            if provider in own and name != target:
                why = "a deployment does not rename models"
                remedy = f"use {target}, or add another name to publish: of optictl.yaml"
                not_taken.append(NotTaken(f"model_map {name} -> {target}", why, remedy))
    if service.approach == "proxy" and service.provider_config is None and not service.denied:
        why = (
            "OptiLLM uses its packaged example with public providers; "
            "the file of a deployment has LiteLLM only"
        )
        not_taken.append(NotTaken("no proxy_config.yaml", why))
    return not_taken


def own_files(service: HandMade, paths: Paths) -> list[NotTaken]:
    not_taken = []
    user = paths.name if paths.scope == "system" else ""
    if user and service.user != user:
        why = f"the service runs as the user {user}, which sees no home directory"
        not_taken.append(NotTaken(f"User={service.user}", why))
    if service.plugins:
        why = "OptiLLM executes them at its start; a release contains only the configured plugins"
        remedy = "review them, then list them in plugins: of optictl.yaml"
        not_taken.append(NotTaken(f"plugins {', '.join(map(str, service.plugins))}", why, remedy))
    if service.version and service.version != (pinned := Config().optillm.version):
        not_taken.append(
            NotTaken(
                f"OptiLLM {service.version}",
                f"a deployment runs {pinned}, the version that the guard knows",
            )
        )
    not_taken += [
        NotTaken(
            f"start through {wrapper}",
            "the unit starts the guard itself",
            f"check whether {wrapper} does more",
        )
        for wrapper in service.wrappers
        if wrapper.startswith("/")
    ]
    return not_taken


#: Settings of [Service] that run commands, and those that set limits.
_COMMANDS = (
    "ExecCondition",
    "ExecStartPre",
    "ExecStartPost",
    "ExecReload",
    "ExecStop",
    "ExecStopPost",
)
_LIMITS = re.compile(
    r"(Limit[A-Z]+|Memory\w+|CPU\w+|IO\w+|TasksMax|Nice|OOM\w+|Slice|Timeout\w+|RuntimeMaxSec)"
)
_RELATIONS = ("After", "Before", "Requires", "Wants", "BindsTo", "PartOf", "Requisite", "OnFailure")
_COMMON = re.compile(
    r"(network|network-online|multi-user|syslog|basic|local-fs|nss-lookup|time-sync)\.target"
    r"|-\.mount"
)


def directives(service: HandMade, paths: Paths) -> list[NotTaken]:
    own = f"{paths.service}.d/local.conf"
    not_taken = []
    names = service.settings.names()
    for name in _COMMANDS:
        if service.settings.all(name):
            not_taken.append(
                NotTaken(
                    f"{name}=",
                    "the unit starts the guard only",
                    "run it from another unit",
                )
            )
    if limits := [
        f"{name}={entry.value}"
        for name in names
        if _LIMITS.fullmatch(name) and (entry := service.settings.last(name))
    ]:
        text = ", ".join(limits)
        not_taken.append(
            NotTaken(
                text, "the unit has its own limits and timeouts", f"add the ones you need to {own}"
            )
        )
    for name in _RELATIONS:
        units = [
            unit for entry in service.settings.all(name, "Unit") for unit in entry.value.split()
        ]
        if units := [unit for unit in units if not _COMMON.fullmatch(unit)]:
            what = f"{name}={' '.join(dict.fromkeys(units))}"
            not_taken.append(
                NotTaken(
                    what,
                    "the unit has its own dependencies",
                    f"add it to {own} if you need it",
                )
            )
    return not_taken


def drop_ins(service: HandMade, paths: Paths) -> list[NotTaken]:
    not_taken = []
    remedy = (
        f"{paths.command('install --force')} moves it to the backup; "
        "then write a new drop-in for the settings that you need"
    )
    for path, _text in service.drop_ins:
        own = [e.name for e in service.settings.entries if e.where.rpartition(":")[0] == str(path)]
        what = f"drop-in {path} ({', '.join(f'{name}=' for name in dict.fromkeys(own))})"
        not_taken.append(
            NotTaken(
                what,
                "it is for the old unit, and would change the new unit too",
                remedy,
            )
        )
    return not_taken


def unread(service: HandMade, _: Paths) -> list[NotTaken]:
    known = [problem for problem in service.problems if OUTPUT not in problem]
    remedy = "write its settings into optictl.yaml"
    return [
        NotTaken("a part of the unit", f"it cannot be parsed: {problem}", remedy)
        for problem in known
    ]
