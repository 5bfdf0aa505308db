"""The paths of a deployment. Pure: nothing here reads the disk."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

#: The default name of a deployment. Its units, directories and user have this name.
NAME = "optillm-proxy"
#: Directories with private files of users. A unit with ProtectHome= does not see them.
HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
Scope = Literal["system", "user"]

#: Suffixes of the other units of a deployment.
_OWN_ENDS = ("-upstream", "-next", "-attack", "-check", "-trial")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


def name_problem(name: str) -> str | None:
    """The reason why a deployment cannot have this name, or None.

    The name is also the name of a user and of units.
    """
    if not _NAME.fullmatch(name):
        return "must be a lower-case letter, then at most 30 of a-z, 0-9 and -"
    if name.endswith(_OWN_ENDS):
        return f"must not end in {' or '.join(_OWN_ENDS)}: units of other deployments end so"
    return None


@dataclass(frozen=True)
class Paths:
    """The paths of one deployment. With `--root DIR`, all of them are below DIR.

    `name` distinguishes deployments on one host. Their units, directories and users have it.
    """

    scope: Scope
    etc: Path
    opt: Path
    home: Path
    units: Path
    #: one log file for each run of a command that changes something
    log: Path
    name: str = NAME
    #: the options that select this deployment: "--root DIR", "--user", "--name NAME" or none
    flags: str = ""

    @property
    def is_private(self) -> bool:
        """Whether this is a deployment below --root. systemd does not manage it."""
        return self.flags.startswith("--root")

    def command(self, name: str) -> str:
        """The optictl command `name` for this deployment, ready to paste into a shell."""
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
        """A symbolic link to the active release."""
        return self.opt / "current"

    @property
    def previous(self) -> Path:
        """A symbolic link to the previous release."""
        return self.opt / "previous"

    @property
    def manifest(self) -> Path:
        """The digests of the files that optictl wrote."""
        return self.opt / "manifest.json"

    @property
    def locks(self) -> Path:
        """Locks of this deployment, in addition to those that optictl ships."""
        return self.etc / "locks"

    @property
    def scratch(self) -> Path:
        """Temporary files of a running optictl. Files here are left over when none runs."""
        return self.opt / ".scratch"

    @property
    def proxy_config(self) -> Path:
        """The file that OptiLLM's proxy plugin reads.

        `.optillm` is a link into the service's HOME.
        """
        return self.home / ".optillm" / "proxy_config.yaml"

    @property
    def service_unit(self) -> str:
        return f"{self.name}.service"

    @property
    def socket_unit(self) -> str:
        return f"{self.name}.socket"

    @property
    def sibling_unit(self) -> str:
        """The unit of the second process. It serves while the first one drains."""
        return f"{self.name}-next.service"

    @property
    def unit_names(self) -> tuple[str, ...]:
        """Every unit of the deployment, the service first. Not all of them exist at all times."""
        return (
            self.service_unit,
            self.sibling_unit,
            self.socket_unit,
            self.upstream_service.name,
            self.upstream_socket.name,
            self.check_service.name,
            self.check_timer.name,
        )

    def short_unit(self, unit: str) -> str:
        """The name of a unit within the deployment: "next" for the sibling, "" for the service."""
        rest = unit.removeprefix(self.name)
        return rest.removesuffix(".service").lstrip("-.") if rest != unit else unit

    @property
    def trial_name(self) -> str:
        """The unit that runs a new release for a test, before the service is changed."""
        return f"{self.name}-trial"

    @property
    def before(self) -> Path:
        """The kept files and state of the service that optictl replaced."""
        return self.etc / "before"

    @property
    def upstream_name(self) -> str:
        """The name of the relay units. A sealed service reaches its upstream through the relay."""
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
        """The name of the monitoring units. They check the deployment every minute."""
        return f"{self.name}-check"

    @property
    def check_service(self) -> Path:
        return self.units / f"{self.check_name}.service"

    @property
    def check_timer(self) -> Path:
        return self.units / f"{self.check_name}.timer"

    @property
    def root_directory(self) -> Path:
        """The empty root directory of a sealed service."""
        return self.opt / "root"


def _flags(*flags: str, name: str) -> str:
    return " ".join([*flags, *([f"--name {name}"] if name != NAME else [])])


def system(root: Path | None = None, name: str = NAME) -> Paths:
    """The paths of a deployment of the system, or of one that is completely below `root`."""
    base = root or Path("/")
    return Paths(
        scope="system",
        etc=base / "etc" / name,
        opt=base / "opt" / name,
        home=base / "var/lib" / name,
        units=base / "etc/systemd/system",
        log=base / "var/log" / name,
        name=name,
        flags=_flags(*([f"--root {shlex.quote(str(root))}"] if root else []), name=name),
    )


def user(environ: Mapping[str, str], name: str = NAME) -> Paths:
    """The paths of a deployment of a user, in the XDG base directories."""
    home = Path(environ.get("HOME") or "~").expanduser()

    def xdg(variable: str, default: str) -> Path:
        value = environ.get(variable, "")
        # the XDG specification says to ignore relative paths
        return Path(value) if value.startswith("/") else home / default

    return Paths(
        scope="user",
        etc=xdg("XDG_CONFIG_HOME", ".config") / name,
        opt=xdg("XDG_DATA_HOME", ".local/share") / name,
        home=xdg("XDG_STATE_HOME", ".local/state") / name,
        units=xdg("XDG_CONFIG_HOME", ".config") / "systemd/user",
        log=xdg("XDG_STATE_HOME", ".local/state") / f"{name}-log",
        name=name,
        flags=_flags("--user", name=name),
    )
