"""How the commands in messages have to be typed on this machine, by this caller. Pure.

Messages name commands as in the documentation: `optictl install`, `systemctl restart NAME`. Pasted
as they are, they often fail: sudo looks in its own directories for programs (secure_path in
sudoers(5)), and a caller who went through sudo has no permission without it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: The commands of optictl that act on a deployment; those of a system's deployment need root.
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
#: Those that need no deployment of the system.
OTHER_COMMANDS = (
    "config",
    "demo",
    "fleet",
    "render-check-timer",
    "render-check-unit",
    "render-env",
    "render-litellm",
    "render-proxy-config",
    "render-socket",
    "render-unit",
    "render-upstream-service",
    "render-upstream-socket",
)
#: Programs that a remedy runs on files and units which root owns.
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
#: Where a remedy begins a command: at its own beginning, or behind what joins two of them.
_BEGIN = r"(?:(?<=^)|(?<=&& )|(?<=\|\| )|(?<=; )|(?<=, then )|(?<=: ))"
_EDITOR = r"\$\{EDITOR:-vi\}"
_TOOL = re.compile(rf"{_BEGIN}(?P<command>(?:{'|'.join(_TOOLS)}|{_EDITOR}) (?!--user))")
#: What a remedy says where the caller lacks a permission; the command itself is put behind it.
WITH_SUDO = "run it with sudo"


@dataclass(frozen=True)
class Invocation:
    """How this caller reaches optictl. The defaults are the words of the documentation.

    `program` is what stands for `optictl`, quoted for a shell. `sudo`: commands that act on this
    deployment need it. `again` is the present command line without the program.
    """

    program: str = "optictl"
    sudo: bool = False
    again: str = ""

    def spell(self, text: str) -> str:
        """The text with every command as it has to be typed."""
        if self.sudo:
            text = _TOOL.sub(r"sudo \g<command>", text)
        text = _OWN.sub(self._own, text)
        if self.again:
            text = text.replace(WITH_SUDO, f"{WITH_SUDO}: sudo {self.program} {self.again}")
        return text

    def _own(self, found: re.Match[str]) -> str:
        name, rest = found["name"], found["rest"]
        needed = self.sudo and name in DEPLOYMENT_COMMANDS and "--user" not in rest
        return f"{'sudo ' if needed else ''}{self.program} {name}{rest}"


def needs_sudo(*, is_root: bool, through_sudo: bool, scope: str, private: bool) -> bool:
    """Whether commands for this deployment need sudo.

    `through_sudo`: the caller became root by sudo, and the next command starts without it.
    `private`: the deployment lies below --root and belongs to its caller.
    """
    if scope == "user":
        return False
    return through_sudo if is_root or private else True
