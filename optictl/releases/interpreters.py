"""The Python that a release is built on."""

from __future__ import annotations

import platform
import shlex
from dataclasses import dataclass
from pathlib import Path

from optictl.deployment.paths import Paths
from optictl.errors import OptictlError
from optictl.host import uv
from optictl.host.uv import Interpreter
from optictl.releases import integrity
from optictl.results import Progress

#: The Python that a remedy installs: long supported, and wheels of every profile exist for it.
_ADVISED = "3.12"


@dataclass(frozen=True)
class Choice:
    """The interpreter to build on, or None with the problem and what to do; why others were passed over, a line each."""

    interpreter: Interpreter | None
    passed_over: list[str]
    problem: str = ""
    remedy: str = ""


def choose_interpreter(
    found: list[Interpreter], others_must_reach: bool
) -> tuple[Interpreter | None, list[str]]:
    """The interpreter to build on, and why others were passed over. Pure.

    The newest that the locked closure has wheels for; `others_must_reach`: the service
    runs as a user that cannot enter private homes.
    """
    fitting, passed = [], []
    for interpreter in sorted(found, key=lambda i: i.version, reverse=True):
        if not interpreter.fits:
            age = "old" if interpreter.version[:2] < uv.OLDEST else "new"
            passed.append(
                f"{interpreter}: too {age}, the closure is locked for Python {uv.SUPPORTED}"
            )
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
    """The command that installs a fitting Python and then this deployment on it. Pure.

    `install`: the command of optictl; `offered`: what apt would install as python3, None where that is installed or
    there is no apt. uv makes a link without the patch version beside each interpreter that it installs.
    """
    if offered is not None and uv.OLDEST <= offered <= uv.NEWEST:
        return f"sudo apt-get install --yes python3 && {install} --python /usr/bin/python3"
    program = shlex.quote(str(uv_program))
    if not others_must_reach:
        return f"{program} python install {_ADVISED} && {install}"
    python = f"/opt/python/cpython-{_ADVISED}-linux-{platform.machine()}-gnu/bin/python{_ADVISED}"
    return f"sudo env UV_PYTHON_INSTALL_DIR=/opt/python {program} python install {_ADVISED} && {install} --python {python}"


def choose(paths: Paths, others_must_reach: bool, chosen: Path | None) -> Choice:
    """The interpreter that a release of this deployment would be built on. Builds nothing.

    `others_must_reach`: the service runs as another user than optictl; `chosen`: the one that the operator named.

    Raises:
        OptictlError: uv cannot list the interpreters.
    """
    if chosen is not None:
        named = uv.inspect(chosen)
        running, broken = ([named], []) if named else ([], [chosen])
    else:
        active = (integrity.record(paths.current) or {}).get("python", {}).get("path")
        running, broken = uv.interpreters([Path(active)] if active else [])
    best, passed = choose_interpreter(running, others_must_reach)
    passed += [f"{path}: {'it does not run' if path.exists() else 'it is gone'}" for path in broken]
    if best is not None:
        return Choice(best, passed)
    remedy = interpreter_remedy(
        paths.command("install"), others_must_reach, uv.offered_by_apt(), uv.program()
    )
    where = f"{chosen} is not one" if chosen else "there is none on this machine"
    problem = (
        f"a release needs a Python {uv.SUPPORTED} that the service's user can execute: {where}"
    )
    return Choice(None, passed, problem, remedy)


def interpreter(
    paths: Paths, others_must_reach: bool, chosen: Path | None, progress: Progress
) -> Interpreter:
    """Choose the interpreter, saying which were passed over.

    Raises:
        OptictlError: none fits.
    """
    choice = choose(paths, others_must_reach, chosen)
    if choice.interpreter is None:
        raise OptictlError(
            choice.problem, remedy=choice.remedy, detail="\n".join(choice.passed_over)
        )
    for line in choice.passed_over:
        progress(f"passed over {line}")
    return choice.interpreter
