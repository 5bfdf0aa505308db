"""Propose a configuration from a hand-made service, and report what it cannot keep. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.guard import envfile
from optictl.takeover import not_taken, taken_keys, taken_settings
from optictl.takeover.handmade import HandMade
from optictl.takeover.taken import NotTaken, Setting


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
        proposed = {setting.key: setting for setting in self.settings}
        try:
            mixed = _config([proposed.get(setting.key, setting) for setting in own])
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
    not_kept = []
    own = envfile.read((env or "").encode()).variables.get("OPENAI_API_KEY", "").strip()
    if env is not None and proposal.upstream_key and own != proposal.upstream_key:
        why = f"{paths.env} exists and has {'another key' if own else 'no key'}"
        not_kept.append(
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
        not_kept.append(NotTaken("the proxy key", why, remedy))
    return not_kept


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


#: The parts of a service whose values become settings.
_SETTINGS = (
    taken_settings.listen,
    taken_settings.upstream,
    taken_settings.base_models,
    taken_settings.strategies,
)
#: The parts of which nothing is kept.
_REST = (
    not_taken.variables,
    not_taken.flags,
    not_taken.providers,
    not_taken.own_files,
    not_taken.directives,
    not_taken.drop_ins,
    not_taken.unread,
)


def propose(service: HandMade, paths: Paths, listed: Sequence[str] = ()) -> Proposal:
    """Propose a deployment at `paths`. `listed`: the models of LiteLLM, empty when not known."""
    if not service.runs_optillm:
        problems = [
            NotTaken(service.redact(p), "it cannot be parsed", f"check {service.path}")
            for p in service.problems
        ]
        return Proposal((), tuple(problems))
    settings: list[Setting] = []
    not_kept: list[NotTaken] = []
    for read_settings in _SETTINGS:
        proposed, reasons = read_settings(service, listed)
        settings += _valid(settings, proposed, not_kept)
        not_kept += reasons
    key, key_where, about_key = taken_keys.proxy_key(service, paths)
    upstream, upstream_where, about_upstream = taken_keys.upstream_key(service, paths)
    not_kept += [*about_key, *about_upstream]
    for read_rest in _REST:
        not_kept += read_rest(service, paths)
    shown = (
        NotTaken(service.redact(n.what), service.redact(n.why), service.redact(n.remedy))
        for n in not_kept
    )
    return Proposal(tuple(settings), tuple(shown), key, key_where, upstream, upstream_where)


def _valid(
    settings: Sequence[Setting], proposed: Sequence[Setting], not_kept: list[NotTaken]
) -> list[Setting]:
    """The proposed settings that are valid with the others. The rest is appended to `not_kept`."""
    valid: list[Setting] = []
    for setting in proposed:
        try:
            _config([*settings, *valid, setting])
        except ValidationError as invalid:
            why = "; ".join(str(e["msg"]).removeprefix("Value error, ") for e in invalid.errors())
            what = f"{setting.key}: {_words(setting.value)}"
            not_kept.append(NotTaken(what, why, f"write {setting.key} yourself"))
        else:
            valid.append(setting)
    return valid
