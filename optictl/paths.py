"""Where everything of a deployment lives. Pure: nothing here looks at the disk."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

NAME = "optillm-proxy"
#: The relay to the upstream that a sealed service needs.
UPSTREAM = f"{NAME}-upstream"
#: The second process that serves while `restart` or an upgrade drains the first.
SIBLING = f"{NAME}-next"
Scope = Literal["system", "user"]


@dataclass(frozen=True)
class Paths:
    """The places of one deployment. Under `--root DIR` all of them are below DIR."""

    scope: Scope
    etc: Path
    opt: Path
    home: Path
    units: Path
    #: what names this deployment on the command line ("--root DIR", "--user" or nothing)
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
    def proxy_config(self) -> Path:
        """The file that OptiLLM's proxy plugin reads, below the HOME of the service."""
        return self.home / ".optillm" / "proxy_config.yaml"

    @property
    def service(self) -> Path:
        return self.units / f"{NAME}.service"

    @property
    def socket(self) -> Path:
        return self.units / f"{NAME}.socket"

    @property
    def upstream_service(self) -> Path:
        return self.units / f"{UPSTREAM}.service"

    @property
    def upstream_socket(self) -> Path:
        return self.units / f"{UPSTREAM}.socket"

    @property
    def root_directory(self) -> Path:
        """The empty directory that a sealed service has as its root."""
        return self.opt / "root"


def system(root: Path | None = None) -> Paths:
    """The system scope, or a deployment of its own wholly below `root`."""
    base = root or Path("/")
    return Paths(
        scope="system",
        etc=base / "etc" / NAME,
        opt=base / "opt" / NAME,
        home=base / "var/lib" / NAME,
        units=base / "etc/systemd/system",
        flags=f"--root {shlex.quote(str(root))}" if root else "",
    )


def user(environ: Mapping[str, str]) -> Paths:
    """The user scope, by the XDG base directories."""
    home = Path(environ.get("HOME") or "~").expanduser()

    def xdg(variable: str, default: str) -> Path:
        value = environ.get(variable, "")
        # the XDG specification has relative values ignored
        return Path(value) if value.startswith("/") else home / default

    return Paths(
        scope="user",
        etc=xdg("XDG_CONFIG_HOME", ".config") / NAME,
        opt=xdg("XDG_DATA_HOME", ".local/share") / NAME,
        home=xdg("XDG_STATE_HOME", ".local/state") / NAME,
        units=xdg("XDG_CONFIG_HOME", ".config") / "systemd/user",
        flags="--user",
    )
