"""What of a hand-made service a deployment can keep, and what not and why. Pure: a service in, a proposal out."""

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

#: A key that every reader of an env file takes as it is.
_PLAIN_KEY = re.compile(r"[!-~]+")
_AWKWARD = frozenset("'\"\\$#;`")


@dataclass(frozen=True)
class Setting:
    """A value for optictl.yaml: its key (`listen.port`), the value, and the place that it comes from."""

    key: str
    value: Any
    where: str


@dataclass(frozen=True)
class NotTaken:
    """Something of the service that a deployment cannot keep: what, why, and what to do about it."""

    what: str
    why: str
    remedy: str = ""


@dataclass(frozen=True)
class Proposal:
    """What `init` proposes. `proxy_key` and `upstream_key` are None where there is none to be taken.

    `key_where` and `upstream_where`: the places that the keys come from.
    """

    settings: tuple[Setting, ...]
    not_taken: tuple[NotTaken, ...]
    proxy_key: str | None = field(default=None, repr=False)
    key_where: str = ""
    upstream_key: str | None = field(default=None, repr=False)
    upstream_where: str = ""

    @property
    def config(self) -> Config:
        """The configuration with the values that were taken, the defaults for everything else."""
        return _config(self.settings)

    def differences(self, config: Config) -> list[tuple[Setting, Any]]:
        """The settings that another configuration has otherwise, each with what it has."""
        pairs = ((setting, _value_of(config, setting.key)) for setting in self.settings)
        return [
            (setting, value) for setting, value in pairs if _plain(value) != _plain(setting.value)
        ]

    def over(self, config: Config) -> Config:
        """A configuration with the values that were taken instead, where they fit together."""
        own = [Setting(key, _value_of(config, key), "") for key in _KEYS]
        taken = {setting.key: setting for setting in self.settings}
        try:
            mixed = _config([taken.get(setting.key, setting) for setting in own])
        except ValidationError:
            mixed = self.config
        return config.model_copy(update={name: getattr(mixed, name) for name in _FIELDS})

    def comment(self, path: object) -> str:
        """Lines for the top of optictl.yaml: which values come from where."""
        places = [s.where.replace(f" in {path}:", ", line ") for s in self.settings]
        pairs = zip(self.settings, places, strict=True)
        lines = [f"#   {s.key}: {_words(s.value)} ({place})" for s, place in pairs]
        return "\n".join([f"# Taken from {path}:", *lines, "", ""])


#: What is taken of a service, in the order in which the configuration has it; the fields of it that these change.
_KEYS = ("listen.port", "upstream.base_url", "model", "base_models", "approach", "strategies")
_FIELDS = ("listen", "upstream", "model", "base_models", "approach", "strategies")


def about_kept(
    proposal: Proposal, paths: Paths, env: str | None, proxy_key: str | None
) -> list[NotTaken]:
    """What is not taken because the deployment's own files stand there already: their texts, None where one is missing."""
    left = []
    own = envfile.read((env or "").encode()).variables.get("OPENAI_API_KEY", "").strip()
    if env is not None and proposal.upstream_key and own != proposal.upstream_key:
        why = f"{paths.env} exists and has {'another one' if own else 'none'}"
        left.append(
            NotTaken(
                f"OPENAI_API_KEY of {proposal.upstream_where}",
                why,
                f"write the right one into {paths.env}",
            )
        )
    if proxy_key is not None and proposal.proxy_key and proxy_key.strip() != proposal.proxy_key:
        why = f"{paths.proxy_key} exists and has another one"
        remedy = f"LiteLLM must send that one; or remove {paths.proxy_key} and run {paths.command('init')} again"
        left.append(NotTaken("the proxy key", why, remedy))
    return left


def with_upstream_key(env: str, key: str | None) -> str:
    """The env file's skeleton with the key in it."""
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
    """A proposal for a deployment at `paths`. `listed`: the models that LiteLLM lists; none where it was not asked."""
    if not service.runs_optillm:
        problems = [
            NotTaken(service.redact(p), "it cannot be read", f"look at {service.path}")
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
    """Those of the new settings with which the configuration can be used; the others go to `left`."""
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
        where = _from(service, "port", "OptiLLM's default: the unit gives no --port")
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
    """The model, those that the providers send in place of others, and those behind LiteLLM's strategy models."""
    taken, left = [], []
    where = _from(service, "model", "")
    names: dict[str, str] = {service.model: where} if where else {}
    for provider in _own_providers(service):
        names.update(
            dict.fromkeys(provider.model_map.values(), f"model_map of provider {provider.name}")
        )
    for _, base in _published(listed):
        names.setdefault(base, "LiteLLM's list: it publishes strategies of it")
    good = {
        name: place for name, place in names.items() if not model_names.base_model_problem(name)
    }
    for name in names.keys() - good.keys():
        problem = model_names.base_model_problem(name)
        remedy = "give it another name in LiteLLM, and write that into base_models"
        left.append(NotTaken(f"model {name}", f"the name {problem}", remedy))
    if not where:
        why = f"requests then use OptiLLM's default, {service.model}"
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
    """(strategy, base model) of each name that LiteLLM lists beside its base model."""
    for name in listed:
        strategies, base = model_names.parse(name)
        if (
            len(strategies) == 1
            and base in listed
            and strategies[0] not in model_names.NOT_STRATEGIES
        ):
            yield strategies[0], base


def _strategies(service: HandMade, listed: Sequence[str]) -> _Part:
    """The approach, and the default's strategies with those that this service is asked for."""
    taken: list[Setting] = []
    left: list[NotTaken] = []
    wanted: dict[str, str] = {}
    approach, where = service.approach, service.where.get("approach", "")
    if approach in ("proxy", "auto"):
        taken.append(
            Setting(
                "approach", approach, where or "OptiLLM's default: the unit gives no --approach"
            )
        )
    elif approach == "none":
        left.append(
            NotTaken(
                "--approach none",
                "a name without a strategy is refused",
                "send plain requests to LiteLLM itself",
            )
        )
    elif approach:
        taken.append(Setting("approach", "auto", f"{where}, which names one strategy"))
        wanted[approach] = where
        left.append(
            NotTaken(
                f"--approach {approach}",
                "it runs for every request; in a deployment the model's name chooses the strategy",
                f"ask for {approach}-{service.model}",
            )
        )
    for strategy, _ in _published(listed):
        wanted.setdefault(strategy, "LiteLLM's list")
    default = Config().strategies
    extra = [name for name in wanted if name not in default and name in model_names.WORDS]
    for name in extra:
        if what := model_names.CODE_EXECUTION.get(name):
            remedy = f"to permit it, add {name} to strategies and set allow_code_execution: true"
            left.append(NotTaken(f"strategy {name}", f"it {what}", remedy))
    if safe := [name for name in extra if name not in model_names.CODE_EXECUTION]:
        places = dict.fromkeys(wanted[name] for name in safe)
        taken.append(
            Setting(
                "strategies",
                [*default, *safe],
                f"the default, and {', '.join(safe)}: {'; '.join(places)}",
            )
        )
    return taken, left


_Key = tuple["str | None", str, list[NotTaken]]


def _proxy_key(service: HandMade, paths: Paths) -> _Key:
    give = (
        f"LiteLLM must send the new one: put the text of {paths.proxy_key} where LiteLLM has the old key "
        f"({paths.command('render-litellm')} prints the entries), and restart LiteLLM"
    )
    where = service.where.get("proxy_key", "")
    weakness = invariants.key_weakness(service.proxy_key, service.upstream_key)
    if not service.proxy_key:
        unread = any(
            "what a program prints" in p and "--optillm-api-key" in p for p in service.problems
        )
        why = "it is what a program prints" if unread else "it asks its clients for none"
        return None, "", [NotTaken("the proxy key", f"{why}; a new one is made", give)]
    if weakness:
        return None, "", [NotTaken("the proxy key", f"it {weakness}; a new one is made", give)]
    return service.proxy_key, where, []


def _upstream_key(service: HandMade, paths: Paths) -> _Key:
    """OPENAI_API_KEY for the new env file, unless that file has it already; else the provider's key."""
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
        why = "it holds characters that env files quote in different ways"
        return None, "", [NotTaken("OPENAI_API_KEY", why, f"write it into {paths.env}")]
    return key, where, []


#: Variables that carry nothing of a service over.
_OF_NO_ACCOUNT = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|PWD|TERM|LANG|LC_\w+|TZ|VIRTUAL_ENV|PYTHON\w*|XDG_\w+|UV_\w+|TMPDIR|_"
)
#: Variables whose values are taken as settings.
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
                why += "; its value is taken as a setting"
            why += f"; the guard does not start while {place} has it" if stays else ""
            left.append(NotTaken(f"variable {name}", why, remedy))
        elif (
            place and not stays and name != "OPENAI_API_KEY" and not _OF_NO_ACCOUNT.fullmatch(name)
        ):
            if f"{{{name}}}" in service.text or f"${name}" in service.text:
                continue  # it only carries a flag's value
            left.append(
                NotTaken(
                    f"variable {name}",
                    "a sealed service has an environment of optictl's making",
                    "",
                )
            )
    for name in service.passed:
        left.append(
            NotTaken(
                f"variable {name}",
                "PassEnvironment= hands it on from systemd; its value is not known",
            )
        )
    return left


#: Flag -> (why it is not kept, what there is instead).
_FLAGS: dict[str, tuple[str, str]] = {
    "--log": ("OptiLLM's debug log has prompts and keys; the guard logs one line per request", ""),
    "--log-conversations": (
        "no prompt is written to a disk",
        "optictl trace shows one request, call by call",
    ),
    "--conversation-log-dir": (
        "no prompt is written to a disk",
        "optictl trace shows one request, call by call",
    ),
    "--launch-gui": ("OptiLLM then starts a web page in place of the proxy", ""),
    "--plugins-dir": (
        "it has no effect in OptiLLM 0.3.12",
        "name plugin files in plugins: of optictl.yaml",
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
            why = "LiteLLM is the only way out of a deployment"
            remedy = "add its models to model_list of LiteLLM"
            left.append(
                NotTaken(f"provider {provider.name} ({redacted(provider.base_url)})", why, remedy)
            )
        for name, target in provider.model_map.items():
            if provider in own and name != target:
                why = "names go upstream as they are"
                remedy = f"ask for {target}, or publish another name in publish: of optictl.yaml"
                left.append(NotTaken(f"model_map {name} -> {target}", why, remedy))
    if service.approach == "proxy" and service.provider_config is None and not service.denied:
        why = "OptiLLM then takes its packaged example, with public providers; a deployment has a file with LiteLLM alone"
        left.append(NotTaken("no proxy_config.yaml", why))
    return left


def _own_files(service: HandMade, paths: Paths) -> list[NotTaken]:
    left = []
    user = paths.name if paths.scope == "system" else ""
    if user and service.user != user:
        why = f"the service runs as the user {user}, which sees no home directory"
        left.append(NotTaken(f"User={service.user}", why))
    if service.plugins:
        why = "OptiLLM executes them at its start; a release has copies of those that the configuration names"
        remedy = "read them, then name them in plugins: of optictl.yaml"
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
            f"look whether {wrapper} does more",
        )
        for wrapper in service.wrappers
        if wrapper.startswith("/")
    ]
    return left


#: Settings of [Service] that run something, and those that limit something.
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
    r"(network|network-online|multi-user|syslog|basic|local-fs|nss-lookup|time-sync)\.target|-\.mount"
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
                    "the unit starts nothing but the guard",
                    "run it from a unit that you make for it",
                )
            )
    if limits := [
        name for name in names if _LIMITS.fullmatch(name) and service.settings.last(name)
    ]:
        text = ", ".join(f"{name}={service.settings.last(name).value}" for name in limits)  # type: ignore[union-attr]
        left.append(
            NotTaken(
                text, "the unit has its own limits and timeouts", f"write what you need into {own}"
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
                    f"write it into {own}, if it is needed",
                )
            )
    return left


def _drop_ins(service: HandMade, paths: Paths) -> list[NotTaken]:
    left = []
    remedy = f"{paths.command('install --force')} sets it aside; write what you still need into a new one afterwards"
    for path, _text in service.drop_ins:
        own = [e.name for e in service.settings.entries if e.where.rpartition(":")[0] == str(path)]
        what = f"drop-in {path} ({', '.join(f'{name}=' for name in dict.fromkeys(own))})"
        left.append(
            NotTaken(
                what,
                "it was written for the old unit, and would change the new one as well",
                remedy,
            )
        )
    return left


def _unread(service: HandMade, _: Paths) -> list[NotTaken]:
    known = [problem for problem in service.problems if "what a program prints" not in problem]
    remedy = "write what it stands for into optictl.yaml"
    return [
        NotTaken("a part of the unit", f"it could not be read: {problem}", remedy)
        for problem in known
    ]
