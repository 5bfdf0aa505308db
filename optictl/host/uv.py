"""uv and the interpreters that it finds: the tools that build a release."""

from __future__ import annotations

import ast
import itertools
import json
import logging
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optictl.errors import FileFailure, TimedOut, ToolError, ToolMissing
from optictl.host import uv_progress, uv_settings
from optictl.host.files import closed_to_others, scratch, write

_LOG = logging.getLogger(__name__)

#: The locked closure has wheels for these minor versions of CPython. pyproject.toml, the README
#: and the collection name them too; a test compares them.
OLDEST, NEWEST = (3, 10), (3, 14)
#: The same in words.
SUPPORTED = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"


@dataclass(frozen=True)
class Interpreter:
    """A Python interpreter on this machine.

    `closed`: the part of its path that other users cannot enter or read. None when they can.
    `unfit`: the reason why it cannot run a release although it starts. "" when there is none.
    """

    path: Path
    version: tuple[int, int, int]
    closed: Path | None
    unfit: str = ""

    @property
    def fits(self) -> bool:
        """Whether the locked closure has wheels for its version."""
        return OLDEST <= self.version[:2] <= NEWEST

    def __str__(self) -> str:
        return f"{self.path} ({'.'.join(map(str, self.version))})"


#: Standard modules that a release needs and a package such as Debian's python3-minimal lacks.
_NEEDED = ("asyncio", "ctypes", "email", "json", "ssl", "sysconfig", "zlib")
# no json here: an interpreter that lacks it must still be able to report that
_ASK = f"""
import os, sys
lacking = []
for name in {_NEEDED!r}:
    try:
        __import__(name)
    except ImportError:
        lacking.append(name)
base = getattr(sys, "_base_executable", sys.executable)
print(repr((os.path.realpath(base), tuple(sys.version_info[:3]), os.path.dirname(os.__file__),
            sys.implementation.name, "t" in getattr(sys, "abiflags", ""), lacking)))
"""
#: Where administrators and uv install shared interpreters, one directory each.
_SHARED = Path("/opt/python")


def program() -> Path:
    """The path of the uv that optictl depends on.

    Raises:
        ToolMissing: it is not installed.
    """
    from uv import find_uv_bin

    try:
        return Path(os.fsdecode(find_uv_bin()))
    except FileNotFoundError:
        raise ToolMissing(
            "the program uv, a dependency of optictl, is missing",
            "install optictl again, such as: uv tool install --reinstall optictl",
        ) from None


def _tables() -> list[dict[str, Any]]:
    """uv's settings of this machine and user: the tables of its files, the first one wins."""
    try:
        home = Path.home()
    except RuntimeError:  # a user without one
        home = Path("/")
    tables = []
    for places in uv_settings.config_places(os.environ, home):
        path: Path | None = None
        try:
            path = next((place for place in places if place.is_file()), None)
            if path is not None:
                tables.append(
                    uv_settings.anchored(uv_settings.parse_toml(path.read_text()), path.parent)
                )
        except PermissionError:
            continue  # uv ignores a file that this user may not read
        except (OSError, ValueError) as error:
            raise FileFailure(
                f"uv's settings {path} cannot be read: {error}",
                remedy=f"edit {path}, or move it out of the way",
            ) from None
    return tables


def _settings() -> str:
    """The text of a uv.toml: the settings of this machine and user that optictl keeps."""
    return uv_settings.kept_settings(_tables())


def pip_settings() -> dict[str, str]:
    """Variables that give pip the index of uv's settings. Empty where uv has none."""
    return uv_settings.pip_variables(_tables(), os.environ)


def _uv(
    *arguments: str, timeout: float | None = None, heard: Callable[[str], None] | None = None
) -> str:
    """Run uv with the kept settings, and return its standard output.

    It runs in the root directory: there is no project. `timeout` is in seconds. `heard` gets each
    line of its standard error at once; there is no timeout then.

    Raises:
        ToolError: uv failed, or did not end in time. The error has the end of its output, and a
            remedy for a known cause.
    """
    with scratch(mode=0o700) as directory:
        settings = directory / "uv.toml"
        write(settings, _settings(), 0o600)  # an index's address may hold a password
        command = [str(program()), "--config-file", str(settings), *arguments]
        environment, began = uv_settings.kept_environment(os.environ), time.monotonic()
        try:
            code, output, errors = (
                _listen(command, environment, heard)
                if heard
                else _silently(command, environment, timeout)
            )
        except subprocess.TimeoutExpired:
            what = f"uv did not end within {timeout:g} s"
            remedy = "look for what blocks it: the package index, or a proxy in between"
            raise TimedOut(what, "", remedy) from None
    words = uv_settings.redacted(shlex.join(["uv", *arguments]))
    _LOG.debug("ran %s: exit %d, %.1f s", words, code, time.monotonic() - began)
    if code:
        what = " ".join(["uv", *itertools.takewhile(str.isalpha, arguments)])
        raise failure(what, uv_progress.without_chatter(errors) or output)
    return output


def _silently(
    command: Sequence[str], environment: Mapping[str, str], timeout: float | None
) -> tuple[int, str, str]:
    """Run a program to its end. Returns its exit code and what it printed to each stream."""
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env=environment,
        cwd="/",
        timeout=timeout,
    )
    return result.returncode, result.stdout, result.stderr


def _listen(
    command: Sequence[str], environment: Mapping[str, str], heard: Callable[[str], None]
) -> tuple[int, str, str]:
    """The same, and hand over each line of the standard error as it comes. Nothing else is printed
    in quantity.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd="/",
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        errors = []
        try:
            for line in process.stderr:
                errors.append(line)
                heard(line)
            output = process.stdout.read()
        except BaseException:
            process.kill()
            raise
    return process.returncode, output, "".join(errors)


def failure(what: str, output: str) -> ToolError:
    """The error for a failed call of uv or pip. `output`: what it printed."""
    words = uv_settings.redacted(output).strip()
    cause, remedy = uv_settings.cause(words)
    return ToolError(f"{what} failed{cause and f': {cause}'}", words[-2000:], remedy)


def version_of(python: Path) -> tuple[int, ...] | None:
    """The version that the interpreter at this path reports. None when it does not run."""
    command = [str(python), "-I", "-S", "-c", "import sys; print(*sys.version_info[:3])"]
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
            stdin=subprocess.DEVNULL,
        )
        return tuple(map(int, result.stdout.split()))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def inspect(python: Path) -> Interpreter | None:
    """What the interpreter at this path reports about itself. None when it does not run."""
    command = [str(python), "-I", "-c", _ASK]
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
            stdin=subprocess.DEVNULL,
        )
        real, version, library, implementation, free_threaded, lacking = ast.literal_eval(
            result.stdout
        )
    except (OSError, subprocess.SubprocessError, ValueError, SyntaxError):
        return None
    path = Path(real)
    unfit = ""
    if implementation != "cpython":
        unfit = f"it is {implementation}, not CPython"
    elif free_threaded:
        unfit = "it is a free-threaded build, which the closure has no wheels for"
    elif lacking:
        unfit = f"it lacks the standard modules {', '.join(lacking)}"
    return Interpreter(
        path, (version[0], version[1], version[2]), closed_to_others([path, Path(library)]), unfit
    )


def candidates(places: Iterable[Path]) -> list[Path]:
    """The paths of interpreters that may run a release, without duplicates.

    They come from `uv python list`, from the interpreter that runs optictl, from `places` (which
    need not exist), and from the directories /opt/python and UV_PYTHON_INSTALL_DIR. optictl reads
    /opt/python too because sudo drops the variable.

    Raises:
        OptictlError: uv cannot list interpreters.
    """
    # no cache: a dry run must not write anything
    listed = json.loads(
        _uv("python", "list", "--only-installed", "--no-cache", "--output-format", "json")
    )
    own = getattr(sys, "_base_executable", sys.executable)
    shared = dict.fromkeys(
        [_SHARED, *([Path(chosen)] if (chosen := os.environ.get("UV_PYTHON_INSTALL_DIR")) else [])]
    )
    below = (path for directory in shared for path in sorted(directory.glob("*/bin/python3.*")))
    interpreters = [
        *(Path(python["path"]) for python in listed if python["implementation"] == "cpython"),
        Path(own),
        *places,
        *(path for path in below if re.fullmatch(r"python3\.\d+", path.name)),
    ]
    # bin/ often has three names for one program
    return list(dict.fromkeys(path.resolve() for path in interpreters))


def interpreters(places: Iterable[Path] = ()) -> tuple[list[Interpreter], list[Path]]:
    """The interpreters of `candidates` that run, and the paths of those that do not.

    Raises:
        OptictlError: uv cannot list interpreters.
    """
    seen = {path: inspect(path) for path in candidates(places)}
    running = {
        interpreter.path: interpreter for interpreter in seen.values() if interpreter is not None
    }
    return list(running.values()), [
        path for path, interpreter in seen.items() if interpreter is None
    ]


def offered_by_apt() -> tuple[int, ...] | None:
    """The version of the package python3 that apt can install.

    None when the package is installed already, or this machine has no apt.
    """
    try:
        result = subprocess.run(
            ["apt-cache", "policy", "python3"],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    said = dict(re.findall(r"^  (Installed|Candidate): (\S+)", result.stdout, re.MULTILINE))
    version = re.match(r"(\d+)\.(\d+)", said.get("Candidate", ""))
    return (
        tuple(map(int, version.groups())) if version and said.get("Installed") == "(none)" else None
    )


def make_venv(directory: Path, python: Path) -> None:
    """Create an empty virtual environment on exactly this interpreter."""
    _uv("venv", "--quiet", "--no-project", "--python", str(python), str(directory))


def install(
    directory: Path,
    lock: Path,
    wheelhouse: Path | None,
    detail: Callable[[str], None] = lambda text: None,
) -> None:
    """Install a locked closure into a venv: wheels only, every hash checked, bytecode compiled.

    Files are copied. A link into uv's cache would let the owner of the cache change a release.
    Test directories of packages are not compiled: they are a quarter of the sources, and nothing
    imports them. With `wheelhouse`, every wheel comes from that directory. `detail` gets a line
    every second about how far it is.

    Raises:
        OptictlError: uv fails, or bytecode cannot be written.
    """
    command = [
        "pip",
        "install",
        "--python",
        str(directory / "bin/python"),
        "--no-deps",
        "--require-hashes",
        "--no-build",
        "--link-mode",
        "copy",
        "--no-compile-bytecode",
        "--requirements",
        str(lock),
    ]
    if wheelhouse is not None:
        command += ["--offline", "--no-index", "--find-links", str(wheelhouse)]
    installing = uv_progress.Installing(directory, detail)
    with installing.watched():
        _uv(*command, heard=installing.heard)
        _compile_packages(directory)


def resolve(requirements: str, excludes: str, preferred: str) -> str:
    """The text of a lock with hashes, for every platform and every supported Python.

    uv resolves it from its index. `requirements` and `excludes` are texts of requirement files.
    `preferred` is the text of an older lock: uv keeps its versions where possible. The lock names
    no index.
    """
    with scratch() as directory:
        source, without, lock = (
            directory / "requirements.in",
            directory / "excludes.txt",
            directory / "lock.txt",
        )
        write(source, requirements, 0o644)
        write(without, excludes, 0o644)
        write(lock, preferred, 0o644)
        command = [
            "pip",
            "compile",
            "--universal",
            "--python-version",
            ".".join(map(str, OLDEST)),
            "--generate-hashes",
            "--no-annotate",
            "--no-header",
            "--no-emit-index-url",
            "--no-emit-find-links",
            "--quiet",
            "--excludes",
            str(without),
            "--output-file",
            str(lock),
            str(source),
        ]
        _uv(*command)
        return lock.read_text(encoding="utf-8")


def site_packages(venv: Path) -> Path | None:
    """The directory of a virtual environment's packages, None without one."""
    return next((venv / "lib").glob("python3.*/site-packages"), None)


#: How long the index may take to answer a question, in seconds.
_INDEX_TIMEOUT = 30


def newest_version(package: str) -> str:
    """The newest final version of a package on uv's index, for the supported Pythons.

    Raises:
        OptictlError: the index does not answer, or does not have the package.
    """
    listed = re.search(rf"^{package}==([^\s;\\]+)", _pin(package), re.MULTILINE)
    if listed is None:
        raise ToolError(f"uv names no version of {package}", "")
    return listed[1]


def has_version(package: str, version: str) -> bool:
    """Whether uv's index has a version of a package.

    Raises:
        OptictlError: the index does not answer.
    """
    try:
        _pin(f"{package}=={version}")
    except ToolError as error:
        if is_missing_version(error):
            return False
        raise
    return True


def is_missing_version(error: ToolError) -> bool:
    """Whether uv failed because the index does not have a version."""
    return bool(re.search(r"there (is|are) no versions? of \S+==", " ".join(error.output.split())))


def _pin(requirement: str) -> str:
    """What uv makes of a requirement, without its dependencies."""
    with scratch() as directory:
        source = directory / "requirements.in"
        write(source, requirement + "\n", 0o644)
        command = ["pip", "compile", "--no-deps", "--universal", "--python-version"]
        options = ["--no-annotate", "--no-header", "--quiet"]
        oldest = ".".join(map(str, OLDEST))
        return _uv(*command, oldest, *options, str(source), timeout=_INDEX_TIMEOUT)


@contextmanager
def sources(requirement: str) -> Iterator[Path]:
    """A temporary directory with the files of one package, without its dependencies."""
    with scratch() as directory:
        command = [
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-build",
            "--python",
            sys.executable,
        ]
        _uv(*command, "--target", str(directory), requirement)
        yield directory


#: Test directories of packages. A release may itself be below a directory named "tests".
_TESTS = r"/site-packages/(.*/)?tests/"
#: What `compileall` prints when it cannot write a file. A source that it cannot parse is not an
#: error here.
_UNWRITTEN = re.compile(r"^\w+: \[Errno \d+\]|^Traceback ", re.MULTILINE)


def _compile_packages(venv: Path) -> None:
    """Compile the packages of a venv to bytecode, on every core, without their test directories.

    Some packages contain sources for another Python, which do not compile. They are skipped, as uv
    does.

    Raises:
        OptictlError: bytecode cannot be written.
    """
    command = [
        str(venv / "bin/python"),
        "-I",
        "-m",
        "compileall",
        "-q",
        "-j",
        "0",
        "-x",
        _TESTS,
        str(venv / "lib"),
    ]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd="/"
    )
    said = result.stdout + result.stderr
    if result.returncode and _UNWRITTEN.search(said):
        raise failure("compileall", said)


def compile_tree(python: Path, directory: Path) -> None:
    """Compile every source below a directory. A hardened service cannot write bytecode itself.

    Raises:
        OptictlError: a source cannot be compiled.
    """
    command = [str(python), "-I", "-m", "compileall", "-q", str(directory)]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd="/"
    )
    if result.returncode:
        raise failure("compileall", result.stderr or result.stdout)
