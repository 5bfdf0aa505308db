"""Where everything of a deployment lives. Pure: nothing here looks at the disk."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

#: The name of a deployment that was given none. Its units, directories and user are called so.
NAME = "optillm-proxy"
#: Below these lie the users' own files: what a unit with ProtectHome= does not see.
HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
Scope = Literal["system", "user"]

#: Ends of names that a deployment's own units have.
_OWN_ENDS = ("-upstream", "-next", "-attack", "-check", "-trial")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


def name_problem(name: str) -> str | None:
    """Why a deployment cannot be called so, or None. The name becomes a user's and a unit's."""
    if not _NAME.fullmatch(name):
        return "must be a small letter, then at most 30 of a-z, 0-9 and -"
    if name.endswith(_OWN_ENDS):
        return f"must not end in {' or '.join(_OWN_ENDS)}: units of a deployment do"
    return None


@dataclass(frozen=True)
class Paths:
    """The places of one deployment. Under `--root DIR` all of them are below DIR.

    `name` tells deployments on one host apart; their units, directories and users are called by it.
    """

    scope: Scope
    etc: Path
    opt: Path
    home: Path
    units: Path
    name: str = NAME
    #: what names this deployment on the command line ("--root DIR", "--user", "--name NAME" or nothing)
    flags: str = ""

    @property
    def is_private(self) -> bool:
        """Whether this is a deployment below --root, which no systemd knows."""
        return self.flags.startswith("--root")

    def command(self, name: str) -> str:
        """The optictl command that does `name` to this deployment, to be copied by a person."""
        return f"optictl {name} {self.flags}".rstrip()

    @property
    def config(self) -> Path:
        return self.etc / "optictl.yaml"

    @property
    def env(self) -> Path:
        """OPENAI_API_KEY=..., mode 0600."""
        return self.etc / "env"

    @property
    def proxy_key(self) -> Path:
        """The key that LiteLLM must send, mode 0600."""
        return self.etc / "proxy_key"

    @property
    def releases(self) -> Path:
        return self.opt / "releases"

    @property
    def current(self) -> Path:
        """A symbolic link to the release in force."""
        return self.opt / "current"

    @property
    def previous(self) -> Path:
        """A symbolic link to the release that was in force before."""
        return self.opt / "previous"

    @property
    def manifest(self) -> Path:
        """What optictl wrote."""
        return self.opt / "manifest.json"

    @property
    def locks(self) -> Path:
        """Hash locks of this deployment's own, beside those that optictl ships."""
        return self.etc / "locks"

    @property
    def scratch(self) -> Path:
        """What an optictl at work needs for a while; whatever is there when none works is a leftover."""
        return self.opt / ".scratch"

    @property
    def proxy_config(self) -> Path:
        """The file that OptiLLM's proxy plugin reads: `.optillm` leads below the HOME of the service."""
        return self.home / ".optillm" / "proxy_config.yaml"

    @property
    def service_unit(self) -> str:
        return f"{self.name}.service"

    @property
    def socket_unit(self) -> str:
        return f"{self.name}.socket"

    @property
    def sibling_unit(self) -> str:
        """The second process that serves while `restart` or an upgrade drains the first."""
        return f"{self.name}-next.service"

    @property
    def trial_name(self) -> str:
        """What a new release is started as before the service is touched."""
        return f"{self.name}-trial"

    @property
    def before(self) -> Path:
        """The files of the service that was there before optictl's, and what it was like."""
        return self.etc / "before"

    @property
    def upstream_name(self) -> str:
        """The relay to the upstream that a sealed service needs."""
        return f"{self.name}-upstream"

    @property
    def service(self) -> Path:
        return self.units / self.service_unit

    @property
    def socket(self) -> Path:
        return self.units / self.socket_unit

    @property
    def upstream_service(self) -> Path:
        return self.units / f"{self.upstream_name}.service"

    @property
    def upstream_socket(self) -> Path:
        return self.units / f"{self.upstream_name}.socket"

    @property
    def check_name(self) -> str:
        """What checks the deployment every minute, where that was asked for."""
        return f"{self.name}-check"

    @property
    def check_service(self) -> Path:
        return self.units / f"{self.check_name}.service"

    @property
    def check_timer(self) -> Path:
        return self.units / f"{self.check_name}.timer"

    @property
    def root_directory(self) -> Path:
        """The empty directory that a sealed service has as its root."""
        return self.opt / "root"


def _flags(*flags: str, name: str) -> str:
    return " ".join([*flags, *([f"--name {name}"] if name != NAME else [])])


def system(root: Path | None = None, name: str = NAME) -> Paths:
    """The system scope, or a deployment of its own wholly below `root`."""
    base = root or Path("/")
    return Paths(
        scope="system",
        etc=base / "etc" / name,
        opt=base / "opt" / name,
        home=base / "var/lib" / name,
        units=base / "etc/systemd/system",
        name=name,
        flags=_flags(*([f"--root {shlex.quote(str(root))}"] if root else []), name=name),
    )


def user(environ: Mapping[str, str], name: str = NAME) -> Paths:
    """The user scope, by the XDG base directories."""
    home = Path(environ.get("HOME") or "~").expanduser()

    def xdg(variable: str, default: str) -> Path:
        value = environ.get(variable, "")
        # the XDG specification has relative values ignored
        return Path(value) if value.startswith("/") else home / default

    return Paths(
        scope="user",
        etc=xdg("XDG_CONFIG_HOME", ".config") / name,
        opt=xdg("XDG_DATA_HOME", ".local/share") / name,
        home=xdg("XDG_STATE_HOME", ".local/state") / name,
        units=xdg("XDG_CONFIG_HOME", ".config") / "systemd/user",
        name=name,
        flags=_flags("--user", name=name),
    )
