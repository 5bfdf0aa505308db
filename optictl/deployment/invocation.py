"""How to type the commands in messages on this machine. Pure.

Messages name commands as the documentation does: `optictl install`, `systemctl restart NAME`.
Pasted as they are, these commands often fail: sudo searches its own directories for programs
(secure_path in sudoers(5)), and a caller who used sudo needs it again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: The commands of optictl that act on a deployment. For a deployment of the system they need root.
DEPLOYMENT_COMMANDS = (
    "check",
    "compare",
    "init",
    "install",
    "logs",
    "releases",
    "restart",
    "rollback",
    "run",
    "smoke",
    "start",
    "status",
    "stop",
    "top",
    "trace",
    "uninstall",
    "upgrade",
)
#: The commands that do not need a deployment.
OTHER_COMMANDS = (
    "config",
    "demo",
    "fleet",
    "render",
    "render-check-timer",
    "render-check-unit",
    "render-env",
    "render-litellm",
    "render-proxy-config",
    "render-socket",
    "render-unit",
    "render-upstream-service",
    "render-upstream-socket",
    "sbom",
    "schema",
    "wheelhouse",
)
#: Programs in remedies that act on files and units of root.
_TOOLS = (
    "apt-get",
    "chmod",
    "chown",
    "cp",
    "env",
    "install",
    "journalctl",
    "kill",
    "ln",
    "mkdir",
    "mount",
    "mv",
    "rm",
    "sed",
    "setfacl",
    "sh",
    "systemctl",
    "tail",
    "timedatectl",
    "truncate",
    "iconv",
)
_NAMES = "|".join(sorted((*DEPLOYMENT_COMMANDS, *OTHER_COMMANDS), key=len, reverse=True))
_OWN = re.compile(
    r"(?<![\w./@-])(?:sudo )?optictl"
    rf" (?P<name>config show|render [a-z-]+|fleet [a-z]+|{_NAMES})\b(?![\w-])"
    r"(?P<rest>[^;&,)\n]*)"
)
#: The commands that are about the hosts of an inventory.
_OF_HOSTS = frozenset(
    f"fleet {name}" for name in ("apply", "check", "plan", "rollback", "smoke", "status", "upgrade")
)
#: An option that selects a deployment.
_PLACE = re.compile(r"--(root|user|name)\b")
#: The commands of a deployment that take --config; those of `render` take it, too.
_WITH_CONFIG = (
    "check",
    "compare",
    "install",
    "rollback",
    "run",
    "smoke",
    "top",
    "trace",
    "upgrade",
)
#: Where a command begins in a remedy: at its start, or after a separator of two commands.
_BEGIN = r"(?:(?<=^)|(?<=&& )|(?<=\|\| )|(?<=; )|(?<=, then )|(?<=: ))"
_EDITOR = r"\$\{EDITOR:-vi\}"
_TOOL = re.compile(rf"{_BEGIN}(?P<command>(?:{'|'.join(_TOOLS)}|{_EDITOR}) (?!--user))")
#: The remedy for a missing permission. `Invocation.spell` appends the command.
WITH_SUDO = "run it with sudo"


@dataclass(frozen=True)
class Invocation:
    """How this caller runs optictl. The defaults are the words of the documentation.

    `program`: the word for `optictl`, quoted for a shell. `sudo`: commands for this deployment need
    it. `again`: the present command line without the program. `place`: the options that select this
    deployment, `config`: the one that names its configuration, `inventory`: those of a fleet; a
    command that has none gets them.
    """

    program: str = "optictl"
    sudo: bool = False
    again: str = ""
    place: str = ""
    config: str = ""
    inventory: str = ""

    def spell(self, text: str) -> str:
        """The text with every command as this caller must type it."""
        if self.sudo:
            text = _TOOL.sub(r"sudo \g<command>", text)
        text = _OWN.sub(self._own, text)
        if self.again:
            text = text.replace(WITH_SUDO, f"{WITH_SUDO}: sudo {self.program} {self.again}")
        return text

    def _own(self, command: re.Match[str]) -> str:
        name, rest = command["name"], command["rest"]
        needed = self.sudo and name in DEPLOYMENT_COMMANDS and "--user" not in rest
        words = ["sudo"] if needed else []
        words += [self.program, name, *self._selecting(name, rest)]
        return " ".join(words) + rest

    def _selecting(self, name: str, rest: str) -> list[str]:
        """The options without which a command would be about another deployment."""
        if name in _OF_HOSTS:
            has_inventory = re.search(r"(^| )(-i|--inventory) ", rest)
            return [self.inventory] if self.inventory and not has_inventory else []
        is_text = name.startswith(("render", "config show"))
        if not is_text and name not in DEPLOYMENT_COMMANDS:
            return []
        # `config show` writes a file that is missing: it may be the one of --config
        takes_config = name.startswith("render") or name in _WITH_CONFIG
        place = "" if _PLACE.search(rest) else self.place
        config = self.config if takes_config and "--config" not in rest else ""
        return [option for option in (place, config) if option]


def needs_sudo(*, is_root: bool, through_sudo: bool, scope: str, private: bool) -> bool:
    """Whether commands for this deployment need sudo.

    `through_sudo`: the caller became root with sudo; the next command runs without it.
    `private`: the deployment is below --root and belongs to its caller.
    """
    if scope == "user":
        return False
    return through_sudo if is_root or private else True
