"""Choosing the Python interpreter of a release."""

from __future__ import annotations

import platform
import shlex
from dataclasses import dataclass
from pathlib import Path

from optictl.deployment.paths import Paths
from optictl.errors import NoPython
from optictl.host import uv
from optictl.host.uv import Interpreter
from optictl.releases import release_record
from optictl.results import Progress

#: The Python version that remedies install: it has long support and wheels for every profile.
_ADVISED = "3.12"


@dataclass(frozen=True)
class Choice:
    """The interpreter to build on, or None with the problem and its remedy.

    `passed_over`: why other interpreters were not chosen, one line each.
    """

    interpreter: Interpreter | None
    passed_over: list[str]
    problem: str = ""
    remedy: str = ""


def choose_interpreter(
    running: list[Interpreter], others_must_reach: bool
) -> tuple[Interpreter | None, list[str]]:
    """The newest suitable interpreter, and why others were not chosen. Pure.

    `others_must_reach`: the service runs as a user that cannot enter private home directories.
    """
    fitting, passed = [], []
    for interpreter in sorted(running, key=lambda i: i.version, reverse=True):
        if not interpreter.fits:
            age = "old" if interpreter.version[:2] < uv.OLDEST else "new"
            passed.append(f"{interpreter}: too {age}, the lock file is for Python {uv.SUPPORTED}")
        elif interpreter.unfit:
            passed.append(f"{interpreter}: {interpreter.unfit}")
        elif others_must_reach and interpreter.closed is not None:
            passed.append(f"{interpreter}: the service user cannot enter {interpreter.closed}")
        else:
            fitting.append(interpreter)
    return (fitting[0] if fitting else None), passed


def interpreter_remedy(
    install: str, others_must_reach: bool, offered: tuple[int, ...] | None, uv_program: Path
) -> str:
    """The command that installs a suitable Python, and then this deployment with it. Pure.

    `install`: the command of optictl. `offered`: the version that apt would install as python3;
    None if it is installed already or there is no apt. uv creates a link without the patch version
    next to each interpreter that it installs.
    """
    if offered is not None and uv.OLDEST <= offered <= uv.NEWEST:
        return f"sudo apt-get install --yes python3 && {install} --python /usr/bin/python3"
    program = shlex.quote(str(uv_program))
    if not others_must_reach:
        return f"{program} python install {_ADVISED} && {install}"
    python = f"/opt/python/cpython-{_ADVISED}-linux-{platform.machine()}-gnu/bin/python{_ADVISED}"
    return (
        f"sudo env UV_PYTHON_INSTALL_DIR=/opt/python {program} python install {_ADVISED}"
        f" && {install} --python {python}"
    )


def choose(paths: Paths, others_must_reach: bool, chosen: Path | None) -> Choice:
    """The interpreter that a release of this deployment would use. Builds nothing.

    `others_must_reach`: the service runs as another user than optictl. `chosen`: the interpreter
    that the operator named.

    Raises:
        OptictlError: uv cannot list the interpreters.
    """
    if chosen is not None:
        named = uv.inspect(chosen)
        running, broken = ([named], []) if named else ([], [chosen])
    else:
        record = release_record.read(paths.current)
        running, broken = uv.interpreters([Path(record.python.path)] if record else [])
    best, passed = choose_interpreter(running, others_must_reach)
    passed += [
        f"{path}: {'it does not run' if path.exists() else 'it does not exist'}" for path in broken
    ]
    if best is not None:
        return Choice(best, passed)
    remedy = interpreter_remedy(
        paths.command("install"), others_must_reach, uv.offered_by_apt(), uv.program()
    )
    where = f"{chosen} is not suitable" if chosen else "this machine has none"
    problem = (
        f"a release needs a Python {uv.SUPPORTED} that the service's user can execute; {where}"
    )
    return Choice(None, passed, problem, remedy)


def interpreter(
    paths: Paths, others_must_reach: bool, chosen: Path | None, progress: Progress
) -> Interpreter:
    """Choose the interpreter, and report which were not chosen and why.

    Raises:
        OptictlError: no interpreter is suitable.
    """
    choice = choose(paths, others_must_reach, chosen)
    if choice.interpreter is None:
        raise NoPython(choice.problem, remedy=choice.remedy, detail="\n".join(choice.passed_over))
    for line in choice.passed_over:
        progress(f"not using {line}")
    return choice.interpreter
