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
_OWN = re.compile(rf"(?<![\w./@-])(?:sudo )?optictl (?P<name>{_NAMES})\b(?P<rest>[^;&,)\n]*)")
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
    it. `again`: the present command line without the program.
    """

    program: str = "optictl"
    sudo: bool = False
    again: str = ""

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
        return f"{'sudo ' if needed else ''}{self.program} {name}{rest}"


def needs_sudo(*, is_root: bool, through_sudo: bool, scope: str, private: bool) -> bool:
    """Whether commands for this deployment need sudo.

    `through_sudo`: the caller became root with sudo; the next command runs without it.
    `private`: the deployment is below --root and belongs to its caller.
    """
    if scope == "user":
        return False
    return through_sudo if is_root or private else True
