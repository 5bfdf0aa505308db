"""Propose a configuration from a hand-made service, and report what it cannot keep. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from optictl.deployment import model_names
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.guard import envfile, invariants
from optictl.takeover.handmade import HandMade, redacted

#: A key without characters that need quotes in an env file.
_PLAIN_KEY = re.compile(r"[!-~]+")
_AWKWARD = frozenset("'\"\\$#;`")


@dataclass(frozen=True)
class Setting:
    """A value for optictl.yaml: key (`listen.port`), value, and source."""

    key: str
    value: Any
    where: str


@dataclass(frozen=True)
class NotTaken:
    """A property of the service that a deployment cannot keep, the reason, and the fix."""

    what: str
    why: str
    remedy: str = ""


@dataclass(frozen=True)
class Proposal:
    """The proposal of `init`. `proxy_key` and `upstream_key` are None when none can be kept.

    `key_where` and `upstream_where`: the sources of the keys.
    """

    settings: tuple[Setting, ...]
    not_taken: tuple[NotTaken, ...]
    proxy_key: str | None = field(default=None, repr=False)
    key_where: str = ""
    upstream_key: str | None = field(default=None, repr=False)
    upstream_where: str = ""

    @property
    def config(self) -> Config:
        """The configuration with the proposed values, and defaults for all others."""
        return _config(self.settings)

    def differences(self, config: Config) -> list[tuple[Setting, Any]]:
        """The settings that differ in another configuration, each with the value there."""
        pairs = ((setting, _value_of(config, setting.key)) for setting in self.settings)
        return [
            (setting, value) for setting, value in pairs if _plain(value) != _plain(setting.value)
        ]

    def over(self, config: Config) -> Config:
        """A configuration with the proposed values, if they are valid together."""
        own = [Setting(key, _value_of(config, key), "") for key in _KEYS]
        taken = {setting.key: setting for setting in self.settings}
        try:
            mixed = _config([taken.get(setting.key, setting) for setting in own])
        except ValidationError:
            mixed = self.config
        return config.model_copy(update={name: getattr(mixed, name) for name in _FIELDS})

    def comment(self, path: object) -> str:
        """A comment for the top of optictl.yaml with the source of each value."""
        places = [s.where.replace(f" in {path}:", ", line ") for s in self.settings]
        pairs = zip(self.settings, places, strict=True)
        lines = [f"#   {s.key}: {_words(s.value)} ({place})" for s, place in pairs]
        return "\n".join([f"# Taken from {path}:", *lines, "", ""])


#: The proposed keys, in the order of the configuration; and the fields that they change.
_KEYS = ("listen.port", "upstream.base_url", "model", "base_models", "approach", "strategies")
_FIELDS = ("listen", "upstream", "model", "base_models", "approach", "strategies")


def about_kept(
    proposal: Proposal, paths: Paths, env: str | None, proxy_key: str | None
) -> list[NotTaken]:
    """Keys that are not kept because the deployment's files exist.

    `env`, `proxy_key`: the texts of these files, None for a missing file.
    """
    left = []
    own = envfile.read((env or "").encode()).variables.get("OPENAI_API_KEY", "").strip()
    if env is not None and proposal.upstream_key and own != proposal.upstream_key:
        why = f"{paths.env} exists and has {'another key' if own else 'no key'}"
        left.append(
            NotTaken(
                f"OPENAI_API_KEY of {proposal.upstream_where}",
                why,
                f"write the right key into {paths.env}",
            )
        )
    if proxy_key is not None and proposal.proxy_key and proxy_key.strip() != proposal.proxy_key:
        why = f"{paths.proxy_key} exists and has another key"
        remedy = (
            f"LiteLLM must send that key; or remove {paths.proxy_key} "
            f"and run {paths.command('init')} again"
        )
        left.append(NotTaken("the proxy key", why, remedy))
    return left


def with_upstream_key(env: str, key: str | None) -> str:
    """The text of the new env file with this key in it."""
    return (
        env
        if key is None
        else re.sub(r"^OPENAI_API_KEY=$", lambda _: f"OPENAI_API_KEY={key}", env, flags=re.M)
    )


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _value_of(config: Config, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _config(settings: Sequence[Setting]) -> Config:
    data: dict[str, Any] = {}
    for setting in settings:
        *above, name = setting.key.split(".")
        place = data
        for step in above:
            place = place.setdefault(step, {})
        place[name] = setting.value
    return Config.model_validate(data)


def propose(service: HandMade, paths: Paths, listed: Sequence[str] = ()) -> Proposal:
    """Propose a deployment at `paths`. `listed`: the models of LiteLLM, empty when not known."""
    if not service.runs_optillm:
        problems = [
            NotTaken(service.redact(p), "it cannot be parsed", f"check {service.path}")
            for p in service.problems
        ]
        return Proposal((), tuple(problems))
    taken: list[Setting] = []
    left: list[NotTaken] = []
    for part in (_listen, _upstream, _base_models, _strategies):
        settings, not_taken = part(service, listed)
        taken += _valid(taken, settings, left)
        left += not_taken
    key, key_where, about_key = _proxy_key(service, paths)
    upstream, upstream_where, about_upstream = _upstream_key(service, paths)
    left += [*about_key, *about_upstream]
    for rest in (_variables, _flags, _providers, _own_files, _directives, _drop_ins, _unread):
        left += rest(service, paths)
    shown = (
        NotTaken(service.redact(n.what), service.redact(n.why), service.redact(n.remedy))
        for n in left
    )
    return Proposal(tuple(taken), tuple(shown), key, key_where, upstream, upstream_where)


def _valid(taken: Sequence[Setting], new: Sequence[Setting], left: list[NotTaken]) -> list[Setting]:
    """The new settings that are valid. The others are appended to `left`."""
    good: list[Setting] = []
    for setting in new:
        try:
            _config([*taken, *good, setting])
        except ValidationError as invalid:
            why = "; ".join(str(e["msg"]).removeprefix("Value error, ") for e in invalid.errors())
            left.append(
                NotTaken(
                    f"{setting.key}: {_words(setting.value)}", why, f"write {setting.key} yourself"
                )
            )
        else:
            good.append(setting)
    return good


_Part = tuple[list[Setting], list[NotTaken]]


def _from(service: HandMade, name: str, words: str) -> str:
    return service.where.get(name) or words


def _listen(service: HandMade, _: Sequence[str]) -> _Part:
    taken, left = [], []
    if service.port is not None:
        where = _from(service, "port", "OptiLLM's default: the unit has no --port")
        taken.append(Setting("listen.port", service.port, where))
    if service.host not in ("", "127.0.0.1", "localhost"):
        left.append(
            NotTaken(
                f"--host {service.host}",
                "the proxy listens on 127.0.0.1 only: other machines reach it through LiteLLM",
                "point clients on other machines at LiteLLM",
            )
        )
    return taken, left


def _upstream(service: HandMade, _: Sequence[str]) -> _Part:
    url, where = service.base_url.rstrip("/"), service.where.get("base_url", "")
    remedy = "write upstream.base_url, LiteLLM's address on this machine, into optictl.yaml"
    if not url:
        why = "OptiLLM then calls api.openai.com; a deployment calls LiteLLM on this machine only"
        return [], [NotTaken("no --base-url", why, remedy)]
    if not (problem := invariants.upstream_problem(url)):
        return [Setting("upstream.base_url", url, where)], []
    if problem == "must end in /v1" and not invariants.upstream_problem(f"{url}/v1"):
        return [Setting("upstream.base_url", f"{url}/v1", f"{where}, with /v1 added")], []
    return [], [NotTaken(f"--base-url {redacted(url)}", f"it {problem}", remedy)]


def _base_models(service: HandMade, listed: Sequence[str]) -> _Part:
    """The base models: --model, targets of model_map, and those of LiteLLM's strategy models."""
    taken, left = [], []
    where = _from(service, "model", "")
    names: dict[str, str] = {service.model: where} if where else {}
    for provider in _own_providers(service):
        names.update(
            dict.fromkeys(provider.model_map.values(), f"model_map of provider {provider.name}")
        )
    for _, base in _published(listed):
        names.setdefault(base, "LiteLLM's list: it has strategy models of it")
    good = {
        name: place for name, place in names.items() if not model_names.base_model_problem(name)
    }
    for name in names.keys() - good.keys():
        problem = model_names.base_model_problem(name)
        remedy = "give it another name in LiteLLM, and write that into base_models"
        left.append(NotTaken(f"model {name}", f"the name {problem}", remedy))
    if not where:
        why = f"OptiLLM's default is {service.model}"
        left.append(
            NotTaken(
                "no --model", why, "write the base model into optictl.yaml: model and base_models"
            )
        )
    if good:
        first = service.model if service.model in good else next(iter(good))
        taken.append(Setting("model", first, good[first]))
        ordered = [first, *(name for name in good if name != first)]
        places = dict.fromkeys(good[name] for name in ordered)
        taken.append(Setting("base_models", ordered, "; ".join(places)))
    return taken, left


def _own_providers(service: HandMade) -> list[Any]:
    return [p for p in service.providers if invariants.same_endpoint(p.base_url, service.base_url)]


def _published(listed: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(strategy, base model) of each strategy model whose base model LiteLLM lists too."""
    for name in listed:
        strategies, base = model_names.parse(name)
        if (
            len(strategies) == 1
            and base in listed
            and strategies[0] not in model_names.NOT_STRATEGIES
        ):
            yield strategies[0], base


def _strategies(service: HandMade, listed: Sequence[str]) -> _Part:
    """The approach, and the default strategies with those that clients use."""
    taken: list[Setting] = []
    left: list[NotTaken] = []
    sources: dict[str, str] = {}
    approach, where = service.approach, service.where.get("approach", "")
    if approach in ("proxy", "auto"):
        taken.append(
            Setting("approach", approach, where or "OptiLLM's default: the unit has no --approach")
        )
    elif approach == "none":
        left.append(
            NotTaken(
                "--approach none",
                "the guard refuses a name without a strategy",
                "send plain requests to LiteLLM itself",
            )
        )
    elif approach:
        taken.append(Setting("approach", "auto", f"{where}, which names one strategy"))
        sources[approach] = where
        left.append(
            NotTaken(
                f"--approach {approach}",
                "it runs for every request; in a deployment the model name selects the strategy",
                f"use {approach}-{service.model}",
            )
        )
    for strategy, _ in _published(listed):
        sources.setdefault(strategy, "LiteLLM's list")
    default = Config().strategies
    extra = [name for name in sources if name not in default and name in model_names.WORDS]
    for name in extra:
        if what := model_names.CODE_EXECUTION.get(name):
            remedy = f"to allow it, add {name} to strategies and set allow_code_execution: true"
            left.append(NotTaken(f"strategy {name}", f"it {what}", remedy))
    if safe := [name for name in extra if name not in model_names.CODE_EXECUTION]:
        places = dict.fromkeys(sources[name] for name in safe)
        taken.append(
            Setting(
                "strategies",
                [*default, *safe],
                f"the default, and {', '.join(safe)}: {'; '.join(places)}",
            )
        )
    return taken, left


_Key = tuple["str | None", str, list[NotTaken]]
#: A part of the reader's message for a value that only a running shell knows.
_OUTPUT = "the output of a program"


def _proxy_key(service: HandMade, paths: Paths) -> _Key:
    give = (
        f"LiteLLM must send the new key: replace the old key in LiteLLM's environment by the text "
        f"of {paths.proxy_key} ({paths.command('render-litellm')} prints the entries), "
        "and restart LiteLLM"
    )
    where = service.where.get("proxy_key", "")
    weakness = invariants.key_weakness(service.proxy_key, service.upstream_key)
    if not service.proxy_key:
        unread = any(_OUTPUT in p and "--optillm-api-key" in p for p in service.problems)
        why = f"it is {_OUTPUT}" if unread else "clients need no key now"
        return None, "", [NotTaken("the proxy key", f"{why}; init generates a new one", give)]
    if weakness:
        why = f"it {weakness}; init generates a new one"
        return None, "", [NotTaken("the proxy key", why, give)]
    return service.proxy_key, where, []


def _upstream_key(service: HandMade, paths: Paths) -> _Key:
    """OPENAI_API_KEY or the provider's key, for the new env file. None if that file has it."""
    where = service.where.get("OPENAI_API_KEY", "")
    if service.upstream_key:
        key = service.upstream_key
        if where == str(paths.env):
            return None, where, []
    else:
        if not (_own_providers(service) and service.provider_keys):
            return None, "", []
        key, where = service.provider_keys[0], f"api_key in {service.provider_config}"
    if not _PLAIN_KEY.fullmatch(key) or set(key) & _AWKWARD:
        why = "it contains characters that env files quote in different ways"
        return None, "", [NotTaken("OPENAI_API_KEY", why, f"write it into {paths.env}")]
    return key, where, []


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


def _variables(service: HandMade, paths: Paths) -> list[NotTaken]:
    forbidden = invariants.forbidden_variables(service.environment)
    as_setting = {
        name
        for field_, names in _AS_SETTINGS.items()
        for name in names
        if service.where.get(field_, "").startswith(name)
    }
    left = []
    for name in service.environment:
        place = service.where.get(name, "")
        stays = place == str(paths.env)
        if name in forbidden:
            line = rf"/^\s*(export\s+)?{name}\s*=/d"
            remedy = f"sed -i -E {shlex.quote(line)} {shlex.quote(place)}" if stays else ""
            why = f"it {forbidden[name]}"
            if name in as_setting:
                why += "; its value becomes a setting"
            why += f"; the guard does not start while {place} has it" if stays else ""
            left.append(NotTaken(f"variable {name}", why, remedy))
        elif (
            place and not stays and name != "OPENAI_API_KEY" and not _OF_NO_ACCOUNT.fullmatch(name)
        ):
            if f"{{{name}}}" in service.text or f"${name}" in service.text:
                continue  # a flag uses its value
            left.append(
                NotTaken(
                    f"variable {name}",
                    "the environment of a deployment has only optictl's variables",
                    "",
                )
            )
    for name in service.passed:
        left.append(
            NotTaken(
                f"variable {name}",
                "PassEnvironment= passes it from systemd; its value is not known",
            )
        )
    return left


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


def _flags(service: HandMade, _: Paths) -> list[NotTaken]:
    left = []
    for flag in service.extra_flags:
        why, remedy = _FLAGS.get(flag, ("OptiLLM 0.3.12 has no such flag", ""))
        if _TUNING.fullmatch(flag):
            why = "a deployment runs each strategy with OptiLLM's default"
        left.append(NotTaken(flag, why, remedy))
    return left


def _providers(service: HandMade, _: Paths) -> list[NotTaken]:
    left = []
    own = _own_providers(service)
    for provider in service.providers:
        if provider not in own:
            why = "a deployment calls LiteLLM only"
            remedy = "add its models to model_list of LiteLLM"
            left.append(
                NotTaken(f"provider {provider.name} ({redacted(provider.base_url)})", why, remedy)
            )
        for name, target in provider.model_map.items():
            if provider in own and name != target:
                why = "a deployment does not rename models"
                remedy = f"use {target}, or add another name to publish: of optictl.yaml"
                left.append(NotTaken(f"model_map {name} -> {target}", why, remedy))
    if service.approach == "proxy" and service.provider_config is None and not service.denied:
        why = (
            "OptiLLM uses its packaged example with public providers; "
            "the file of a deployment has LiteLLM only"
        )
        left.append(NotTaken("no proxy_config.yaml", why))
    return left


def _own_files(service: HandMade, paths: Paths) -> list[NotTaken]:
    left = []
    user = paths.name if paths.scope == "system" else ""
    if user and service.user != user:
        why = f"the service runs as the user {user}, which sees no home directory"
        left.append(NotTaken(f"User={service.user}", why))
    if service.plugins:
        why = "OptiLLM executes them at its start; a release contains only the configured plugins"
        remedy = "review them, then list them in plugins: of optictl.yaml"
        left.append(NotTaken(f"plugins {', '.join(map(str, service.plugins))}", why, remedy))
    if service.version and service.version != (pinned := Config().optillm.version):
        left.append(
            NotTaken(
                f"OptiLLM {service.version}",
                f"a deployment runs {pinned}, the version that the guard knows",
            )
        )
    left += [
        NotTaken(
            f"start through {wrapper}",
            "the unit starts the guard itself",
            f"check whether {wrapper} does more",
        )
        for wrapper in service.wrappers
        if wrapper.startswith("/")
    ]
    return left


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


def _directives(service: HandMade, paths: Paths) -> list[NotTaken]:
    own = f"{paths.service}.d/local.conf"
    left = []
    names = service.settings.names()
    for name in _COMMANDS:
        if service.settings.all(name):
            left.append(
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
        left.append(
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
            left.append(
                NotTaken(
                    what,
                    "the unit has its own dependencies",
                    f"add it to {own} if you need it",
                )
            )
    return left


def _drop_ins(service: HandMade, paths: Paths) -> list[NotTaken]:
    left = []
    remedy = (
        f"{paths.command('install --force')} moves it to the backup; "
        "then write a new drop-in for the settings that you need"
    )
    for path, _text in service.drop_ins:
        own = [e.name for e in service.settings.entries if e.where.rpartition(":")[0] == str(path)]
        what = f"drop-in {path} ({', '.join(f'{name}=' for name in dict.fromkeys(own))})"
        left.append(
            NotTaken(
                what,
                "it is for the old unit, and would change the new unit too",
                remedy,
            )
        )
    return left


def _unread(service: HandMade, _: Paths) -> list[NotTaken]:
    known = [problem for problem in service.problems if _OUTPUT not in problem]
    remedy = "write its settings into optictl.yaml"
    return [
        NotTaken("a part of the unit", f"it cannot be parsed: {problem}", remedy)
        for problem in known
    ]
