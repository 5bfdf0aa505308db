"""A fault at the Nth effect of a block on a deployment's files: an error, a full disk or a SIGKILL.

The effects are seen where Python itself announces them (audit events), so none is left out.
A forked process meets the fault; the caller looks at what it left.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["none", "error", "full disk", "SIGKILL"]
#: Audit events that change a disk or start a program. `open` counts when it is for writing.
_EFFECTS = {
    "open",
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.symlink",
    "os.link",
    "os.chmod",
    "os.truncate",
    "shutil.rmtree",
    "shutil.copyfile",
    "subprocess.Popen",
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Outcome:
    """The number of `effects` that began, and how it `ended`.

    "well", "told" (an error for a person), "killed", or another exception's name.
    """

    effects: int
    ended: str


def _is_effect(event: str, arguments: tuple[Any, ...], root: str) -> bool:
    if event not in _EFFECTS:
        return False
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
        return False
    return any(isinstance(a, str | os.PathLike) and root in os.fspath(a) for a in arguments) or (
        event == "subprocess.Popen" and any(root in str(word) for word in arguments[1] or ())
    )


def run(
    block: Callable[[], object], root: Path, kind: Kind, number: int, told: type[Exception]
) -> Outcome:
    """Run `block` in a child that meets the fault at its effect `number` (from 1) below `root`."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        seen = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            if not _is_effect(event, arguments, str(root)):
                return
            seen += 1
            if seen != number or kind == "none":
                return
            if kind == "SIGKILL":
                os.write(write, f"{seen} killed".encode())
                os.kill(os.getpid(), signal.SIGKILL)
            code = errno.ENOSPC if kind == "full disk" else errno.EIO
            raise OSError(code, os.strerror(code), str(arguments[0]))

        sys.addaudithook(hook)
        ended = "well"
        try:
            block()
        except told:
            ended = "told"
        except BaseException as failure:
            ended = f"{type(failure).__name__}: {failure}"
        os.write(write, f"{seen} {ended}".encode())
        os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read) as pipe:
        effects, _, ended = pipe.read().partition(" ")
    return Outcome(int(effects), ended)
