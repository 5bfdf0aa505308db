"""The running optictl: where its program is installed, and how to type a command for it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

import optictl
from optictl.deployment.invocation import Invocation, needs_sudo
from optictl.deployment.paths import HOMES, Scope
from optictl.host import files

#: Directories that sudo searches on every system. Debian unstable no longer has /usr/local/bin.
_SUDO_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def own_program() -> Path | None:
    """The path of the program `optictl` of this installation. None when there is none."""
    for directory in (sysconfig.get_path("scripts"), sysconfig.get_path("scripts", "posix_user")):
        if (path := Path(directory) / "optictl").is_file():
            return path
    return None


def invocation(
    scope: Scope,
    private: bool,
    environ: Mapping[str, str],
    argv: Sequence[str],
    *,
    place: str = "",
    config: str = "",
) -> Invocation:
    """How the present caller must type commands for this deployment.

    `place` and `config`: the options that select it.
    """
    is_root = os.geteuid() == 0
    through_sudo = is_root and "SUDO_UID" in environ
    sudo = needs_sudo(is_root=is_root, through_sudo=through_sudo, scope=scope, private=private)
    # sudo has already replaced the search path of the caller
    searched = environ.get("PATH", os.defpath) if through_sudo or not sudo else _SUDO_PATH
    word = _word(searched, environ, argv[0])
    return Invocation(word, sudo, shlex.join(argv[1:]), place, config)


def _word(searched: str, environ: Mapping[str, str], typed: str) -> str:
    """The command word with which a shell starts this optictl. `searched`: the shell's PATH."""
    own_path = own_program()
    if own_path is None:
        return f"{shlex.quote(sys.executable)} -m optictl"
    # `uv run` adds the checkout's venv to the PATH of this process only
    on_path = (
        None if "UV_RUN_RECURSION_DEPTH" in environ else shutil.which("optictl", path=searched)
    )
    if on_path is not None and Path(on_path).resolve() == own_path.resolve():
        return "optictl"
    called = Path(typed)
    same = called.is_absolute() and called.resolve() == own_path.resolve()
    return shlex.quote(str(called if same else own_path))


def unfit_reason(*, as_root: bool) -> str:
    """The reason why a unit cannot or must not run this optictl. "" when there is none.

    `as_root`: the unit runs as root and does not see private homes. Only root may then be able to
    change the program.
    """
    path = own_program()
    if path is None:
        scripts = sysconfig.get_path("scripts")
        return f"it is not installed as a program: there is no {scripts}/optictl"
    if not as_root:
        return ""
    python = Path(sys.executable)
    parts = [
        path,
        path.resolve(),
        python,
        python.resolve(),
        Path(optictl.__file__).resolve().parent,
    ]
    for part in parts:
        if home := next((home for home in HOMES if part.is_relative_to(home)), None):
            return f"{part} is in a private home, below {home}"
    if (loose := files.changeable_by_others(parts)) is not None:
        return f"users other than root can change {loose}, and root would run it every minute"
    return ""


def commit() -> str:
    """The commit of this optictl, "-dirty" behind it when files differ. "" when it is not known.

    A package has it in commit.txt (hatch_build.py writes it); a checkout asks git.
    """
    package = Path(optictl.__file__).resolve().parent
    written = files.read(package / "commit.txt")
    if written is not None:
        return written.strip()
    if not (package.parent / ".git").exists():
        return ""
    asked = ["git", "-C", str(package.parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        said = subprocess.run(
            [*asked, "--exclude=*"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.stdout.strip()
