"""A hand-made service: the facts from its unit, and its secrets. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from optictl.guard import invariants
from optictl.takeover.unitfile import Settings

#: The text that replaces a secret.
HIDDEN = "(secret, not shown)"
#: Names of variables and flags whose values are secrets.
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|BEARER|AUTH", re.I)
#: A shorter secret may be part of ordinary words: only whole words are replaced.
_SHORT = 5
#: Values that are not secrets, whatever the name of the setting is.
_HARMLESS = frozenset({"", "0", "1", "true", "false", "yes", "no"})
_USER_INFORMATION = re.compile(r"(?<=://)[^/@\s'\"]+(?=@)")
#: A secret's value that is not hidden yet, quoted or not.
_VALUE = r"""(?!\(secret,|\\\s*\n)("[^"\n]*"|'[^'\n]*'|[^\s'"]+)"""
#: Secrets recognized by the text around them: in comments, and in texts that are not parsed.
_KEY_FLAG = re.compile(rf"(--optillm-api-key(?:\s*\\\s*\n\s*|\s+|=)){_VALUE}")
_VARIABLE = re.compile(
    rf"\b([A-Z0-9_]*(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)[A-Z0-9_]*=){_VALUE}"
)
#: References to a secret, which are not secrets themselves.
_REFERENCE = re.compile(r"""["']?(\$\{?[A-Za-z_]\w*\}?|@\S+|\$\(.*|`.*)["']?""")


@dataclass(frozen=True)
class Provider:
    """A provider in proxy_config.yaml. `model_map`: model name -> the name that is sent instead."""

    name: str
    base_url: str = field(repr=False)
    model_map: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HandMade:
    """A unit that optictl did not write. `repr()` shows no secret. Use `redact` for shown texts.

    `text`: the unit file. `drop_ins`: (path, text) in systemd's order. `program`: the command line
    of OptiLLM or another program, which runs through `wrappers`. `runs_optillm`: it is OptiLLM.
    Each field for a flag has the effective value: the flag, else the variable, else OptiLLM's
    default. `where`: field or variable -> the source of its value, "" for a default.
    `environment`: variables from Environment=, env files and wrappers. `passed`: variables of
    PassEnvironment=, whose values are not known. `provider_config`: the file of OptiLLM's proxy
    plugin, or None. `plugins`: files that OptiLLM would execute, below its working directory.
    `version`: the version of OptiLLM, "" when it is not known. `enabled`: systemd's UnitFileState.
    `problems`: what could not be parsed, as text. `denied`: paths that this user may not read.
    """

    unit: str
    path: Path
    text: str = field(repr=False)
    drop_ins: tuple[tuple[Path, str], ...] = field(default=(), repr=False)
    settings: Settings = field(default=Settings(()), repr=False)
    program: tuple[str, ...] = field(default=(), repr=False)
    wrappers: tuple[str, ...] = ()
    runs_optillm: bool = False
    user: str = "root"
    home: Path | None = None
    directory: Path | None = None
    env_files: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    passed: tuple[str, ...] = ()
    host: str = ""
    port: int | None = None
    base_url: str = field(default="", repr=False)
    approach: str = ""
    model: str = ""
    proxy_key: str = field(default="", repr=False)
    extra_flags: tuple[str, ...] = ()
    where: Mapping[str, str] = field(default_factory=dict)
    provider_config: Path | None = None
    provider_text: str | None = field(default=None, repr=False)
    providers: tuple[Provider, ...] = ()
    provider_keys: tuple[str, ...] = field(default=(), repr=False)
    other_secrets: tuple[str, ...] = field(default=(), repr=False)
    plugins: tuple[Path, ...] = ()
    version: str = ""
    enabled: str = ""
    active: bool = False
    main_pid: int = 0
    problems: tuple[str, ...] = field(default=(), repr=False)
    denied: tuple[Path, ...] = ()

    @property
    def upstream_key(self) -> str:
        """The key with which it calls LiteLLM. "" when it is not known."""
        return self.environment.get("OPENAI_API_KEY", "").strip()

    @property
    def env_file(self) -> Path | None:
        """The file that sets OPENAI_API_KEY, else the last env file, else None."""
        where = self.where.get("OPENAI_API_KEY", "")
        return next(
            (p for p in self.env_files if str(p) == where),
            (*self.env_files, None)[-1] if self.env_files else None,
        )

    @property
    def own_providers(self) -> list[Provider]:
        """The providers at the address that OptiLLM itself calls."""
        return [p for p in self.providers if invariants.same_endpoint(p.base_url, self.base_url)]

    def redact(self, text: str) -> str:
        """The text with every secret replaced: known secrets, and text that looks like one."""
        for secret in sorted(set(self._secrets()), key=len, reverse=True):
            text = _without(text, secret)
        return redacted(text)

    def _secrets(self) -> Iterator[str]:
        yield self.proxy_key
        yield from self.provider_keys
        yield from self.other_secrets
        for name, value in self.environment.items():
            yield from secrets_of(name, value)


def is_secret_name(name: str) -> bool:
    """Whether a variable or a flag with this name has a secret."""
    return bool(_SECRET_NAME.search(name))


def secrets_of(name: str, value: str) -> Iterator[str]:
    """The secrets in the value of a variable or flag: the whole value, or the user in a URL."""
    if is_secret_name(name) and value.lower() not in _HARMLESS and not value.startswith("@"):
        yield value
    yield from _USER_INFORMATION.findall(value)


def redacted(text: str) -> str:
    """The text without secrets after --optillm-api-key and NAME_KEY=, and without users in URLs."""
    for pattern in (_KEY_FLAG, _VARIABLE):
        text = pattern.sub(lambda m: m[0] if _REFERENCE.fullmatch(m[2]) else m[1] + HIDDEN, text)
    return _USER_INFORMATION.sub(HIDDEN, text)


def _without(text: str, secret: str) -> str:
    """The text without a secret, in each form in which a unit file or YAML writes it."""
    for form in _forms(secret):
        alone = rf"(?<!\w){re.escape(form)}(?!\w)"
        text = re.sub(alone if len(secret) < _SHORT else re.escape(form), HIDDEN, text)
    return text


def _forms(secret: str) -> Iterable[str]:
    if not (plain := secret.strip()):
        return ()
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    doubled = [form.replace("%", "%%") for form in (plain, escaped)]
    forms = {
        plain,
        escaped,
        *doubled,
        *(form.replace("$", "$$") for form in (plain, escaped, *doubled)),
    }
    return sorted(forms, key=len, reverse=True)
