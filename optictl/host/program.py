"""The optictl that runs now, as a program that a unit could run."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import optictl
from optictl.host import files
from optictl.paths import HOMES


def own() -> Path | None:
    """The program `optictl` of this installation, or None where it is not installed as one."""
    for directory in (sysconfig.get_path("scripts"), sysconfig.get_path("scripts", "posix_user")):
        if (path := Path(directory) / "optictl").is_file():
            return path
    return None


def problem(*, as_root: bool) -> str:
    """Why a unit cannot or must not run this optictl, or "".

    `as_root`: it would be run by root, without the users' homes, so nobody else may be able to change it.
    """
    path = own()
    if path is None:
        return f"it is not installed as a program (no {sysconfig.get_path('scripts')}/optictl)"
    if not as_root:
        return ""
    python = Path(sys.executable)
    parts = [path, path.resolve(), python, python.resolve(), Path(optictl.__file__).resolve().parent]
    for part in parts:
        if home := next((home for home in HOMES if part.is_relative_to(home)), None):
            return f"{part} lies in a private home, below {home}"
    if (loose := files.changeable_by_others(parts)) is not None:
        return f"somebody else than root can change {loose}, and root would run it every minute"
    return ""
