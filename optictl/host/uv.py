"""uv and the interpreters it finds: what a release is built with."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from optictl.host.files import closed_to_others, scratch, write

#: The wheels of the locked closure exist for these minor versions of CPython.
OLDEST, NEWEST = (3, 10), (3, 13)


class ToolError(Exception):
    """A program that optictl called failed. `output` is the end of what it said."""

    def __init__(self, what: str, output: str) -> None:
        super().__init__(what)
        self.what, self.output = what, output


@dataclass(frozen=True)
class Interpreter:
    """A CPython on this machine. `closed` is the path that keeps other users out, or None."""

    path: Path
    version: tuple[int, int, int]
    closed: Path | None

    @property
    def fits(self) -> bool:
        """Whether the locked closure has wheels for it."""
        return OLDEST <= self.version[:2] <= NEWEST

    def __str__(self) -> str:
        return f"{self.path} ({'.'.join(map(str, self.version))})"


_ASK = (
    "import json, os, sys, sysconfig;"
    "print(json.dumps([os.path.realpath(sys._base_executable), list(sys.version_info[:3]), sysconfig.get_path('stdlib')]))"
)


def _uv() -> str:
    from uv import find_uv_bin

    return os.fsdecode(find_uv_bin())


def _run(command: list[str], what: str, environment: dict[str, str] | None = None) -> str:
    # from the root: uv would take a project's settings out of the caller's directory
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environment, cwd="/"
    )
    if result.returncode:
        raise ToolError(what, (result.stderr or result.stdout).strip()[-2000:])
    return result.stdout


def version_of(python: Path) -> tuple[int, ...] | None:
    """The version of the interpreter at a path, asked of itself; None when it does not run."""
    command = [str(python), "-I", "-S", "-c", "import sys; print(*sys.version_info[:3])"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20, stdin=subprocess.DEVNULL)
        return tuple(map(int, result.stdout.split()))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def inspect(python: Path) -> Interpreter | None:
    """Facts about an interpreter, asked of itself; None when it does not run."""
    command = [str(python), "-I", "-c", _ASK]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20, stdin=subprocess.DEVNULL)
        real, version, stdlib = json.loads(result.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    path = Path(real)
    return Interpreter(path, (version[0], version[1], version[2]), closed_to_others([path, Path(stdlib)]))


def interpreters() -> list[Interpreter]:
    """Every CPython that uv finds on this machine, each once."""
    listed = json.loads(_run([_uv(), "python", "list", "--only-installed", "--output-format", "json"], "uv python list"))
    candidates = dict.fromkeys(Path(p["path"]) for p in listed if p["implementation"] == "cpython")
    found = (inspect(path) for path in candidates)
    return list({i.path: i for i in found if i is not None}.values())


def make_venv(directory: Path, python: Path) -> None:
    """An empty virtual environment on exactly this interpreter."""
    _run([_uv(), "venv", "--quiet", "--no-project", "--python", str(python), str(directory)], "uv venv")


def install(directory: Path, lock: Path, wheelhouse: Path | None) -> None:
    """Install a locked closure into a venv: every hash checked, wheels only, bytecode compiled.

    Files are copied, not linked to uv's cache, so that nobody who owns the cache can
    change a release. With `wheelhouse` nothing is taken from the network.
    """
    command = [
        _uv(), "pip", "install", "--quiet", "--python", str(directory / "bin/python"), "--no-deps", "--require-hashes",
        "--no-build", "--link-mode", "copy", "--compile-bytecode", "--requirements", str(lock),
    ]  # fmt: skip
    if wheelhouse is not None:
        command += ["--offline", "--no-index", "--find-links", str(wheelhouse)]
    # a PYTHONPATH or an active venv of the caller must not reach into the release
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")}
    _run(command, "uv pip install", environment)


def resolve(requirements: str, excludes: str, preferred: str) -> str:
    """A closure with hashes, for every platform and Python from 3.10 on, resolved by uv from its index.

    `requirements` and `excludes` are requirement files' texts; `preferred` is a lock whose versions are
    kept where they fit. The answer names no address.
    """
    with scratch() as directory:
        source, without, lock = directory / "wanted.in", directory / "without.txt", directory / "lock.txt"
        write(source, requirements, 0o644)
        write(without, excludes, 0o644)
        write(lock, preferred, 0o644)
        command = [
            _uv(), "pip", "compile", "--no-config", "--universal", "--python-version", ".".join(map(str, OLDEST)),
            "--generate-hashes", "--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links", "--quiet",
            "--excludes", str(without), "--output-file", str(lock), str(source),
        ]  # fmt: skip
        _run(command, "uv pip compile")
        return lock.read_text(encoding="utf-8")


@contextmanager
def sources(requirement: str) -> Iterator[Path]:
    """A directory with one package's own files, without what it depends on; gone afterwards."""
    with scratch() as directory:
        command = [
            _uv(),
            "pip",
            "install",
            "--quiet",
            "--no-config",
            "--no-deps",
            "--no-build",
            "--target",
            str(directory),
            requirement,
        ]
        _run(command, "uv pip install")
        yield directory


def compile_tree(python: Path, directory: Path) -> None:
    """Bytecode for every source below a directory: a hardened service cannot write any."""
    _run([str(python), "-I", "-m", "compileall", "-q", str(directory)], "compileall")
