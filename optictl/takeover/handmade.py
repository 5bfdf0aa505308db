"""A service written by hand: what its unit comes to, and which of its texts are secret. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from optictl.takeover.unitfile import Settings

#: What stands in place of a secret, everywhere.
HIDDEN = "(secret, not shown)"
#: Names of variables and flags whose values are secrets.
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|BEARER|AUTH", re.I)
#: A shorter secret is a part of ordinary words: it is hidden where it stands alone.
_SHORT = 5
#: Values of settings with a secret's name that are none.
_HARMLESS = frozenset({"", "0", "1", "true", "false", "yes", "no"})
_USER_INFORMATION = re.compile(r"(?<=://)[^/@\s'\"]+(?=@)")
#: Secrets by their surroundings: in comments, in other quotes, in texts that no value was read from.
_KEY_FLAG = re.compile(
    r"(--optillm-api-key(?:\s*\\\s*\n\s*|\s+|=))(?!\(secret,|\\\s*\n)(\"[^\"\n]*\"|'[^'\n]*'|[^\s'\"]+)"
)
_VARIABLE = re.compile(
    r"\b([A-Z0-9_]*(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)[A-Z0-9_]*=)(?!\(secret,|\\\s*\n)(\"[^\"\n]*\"|'[^'\n]*'|[^\s'\"]+)"
)
#: What passes a secret on without being one.
_REFERENCE = re.compile(r"""["']?(\$\{?[A-Za-z_]\w*\}?|@\S+|\$\(.*|`.*)["']?""")


@dataclass(frozen=True)
class Provider:
    """An entry of proxy_config.yaml. `model_map`: the names that it replaces -> what it sends in their place."""

    name: str
    base_url: str = field(repr=False)
    model_map: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HandMade:
    """A unit that optictl did not write. What holds a secret is in no repr; `redact` is for every text that is shown.

    `text` is the unit file's, `drop_ins` are (path, text) in systemd's order. `program`: the words that OptiLLM (or
    another program) is started with, through `wrappers`. `runs_optillm`: it is one. Of the flags, each field has what
    counts in the end: the flag, else the variable, else OptiLLM's default. `where`: field or variable -> the place its
    value comes from, "" for a default. `environment`: of Environment=, the env files and wrappers; `passed`: names of
    variables that systemd hands on and whose values are not known. `provider_config`: the file that OptiLLM's proxy
    plugin reads, None where there is none. `plugins`: files below its working directory that OptiLLM would execute.
    `version` is that of OptiLLM in its virtual environment, "" where that cannot be seen. `enabled` is systemd's word,
    "" where it has none. `problems`: what could not be understood, in words; `denied`: what this user may not read.
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
        """The key with which it calls LiteLLM; "" where none is known."""
        return self.environment.get("OPENAI_API_KEY", "").strip()

    @property
    def env_file(self) -> Path | None:
        """The file that sets OPENAI_API_KEY, else the last that it reads."""
        where = self.where.get("OPENAI_API_KEY", "")
        return next(
            (p for p in self.env_files if str(p) == where),
            (*self.env_files, None)[-1] if self.env_files else None,
        )

    def redact(self, text: str) -> str:
        """The text with every secret replaced: those that this service has, and what looks like one by its place."""
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
    """Whether a variable or a flag of this name holds a secret."""
    return bool(_SECRET_NAME.search(name))


def secrets_of(name: str, value: str) -> Iterator[str]:
    """The secrets in the value of a variable or a flag: all of it by its name, or a user's part of a URL."""
    if is_secret_name(name) and value.lower() not in _HARMLESS and not value.startswith("@"):
        yield value
    yield from _USER_INFORMATION.findall(value)


def redacted(text: str) -> str:
    """A text without what looks like a secret by its place: behind --optillm-api-key, NAME_KEY=, or as a URL's user."""
    for pattern in (_KEY_FLAG, _VARIABLE):
        text = pattern.sub(lambda m: m[0] if _REFERENCE.fullmatch(m[2]) else m[1] + HIDDEN, text)
    return _USER_INFORMATION.sub(HIDDEN, text)


def _without(text: str, secret: str) -> str:
    """A text without a secret, as it is and as a unit file or YAML writes it."""
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
