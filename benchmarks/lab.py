"""The temporary directory of the benchmarks, and the installations in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uv import find_uv_bin

from optictl.deployment import paths
from optictl.deployment.config import Config
from optictl.host import files, uv
from optictl.host.uv import Interpreter
from optictl.releases import interpreters, locks

ROOT = Path(__file__).resolve().parent.parent
#: The full install, with the module that OptiLLM 0.3.12 does not declare.
FULL = ("optillm==0.3.12", "math-verify")


def say(text: str) -> None:
    """Print progress to stderr."""
    print(f"[benchmarks] {text}", file=sys.stderr, flush=True)


@contextmanager
def variables(**values: str) -> Iterator[None]:
    """Set these environment variables during the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Lab:
    """The two installations under test. Each is built at its first use."""

    def __init__(self, place: Path, full: bool) -> None:
        self.place, self.wants_full = place, full
        self.interpreter: Interpreter = interpreters.interpreter(
            paths.system(), os.geteuid() == 0, None, say
        )
        self._release: Path | None = None
        self._full: Path | None = None

    @property
    def release(self) -> Path:
        """optictl's release: the locked closure of the profile `proxy`, and the guard."""
        if self._release is None:
            say("building a release (not measured)")
            directory = self.place / "release"
            self.build_closure(directory / ".venv")
            self.finish_release(directory)
        assert self._release is not None
        return self._release

    @property
    def full(self) -> Path | None:
        """The venv of the full install. None with --no-full."""
        if self._full is None and self.wants_full:
            say("building the full install (not measured): about 7 GB")
            self.build_full(self.place / "full")
        return self._full

    def build_closure(self, venv: Path) -> None:
        """Build the venv of a release with the code of `optictl install`."""
        config = Config()
        venv.parent.mkdir(parents=True, exist_ok=True)
        uv.make_venv(venv, self.interpreter.path)
        uv.install(
            venv, locks.shipped_locks() / locks.lock_name(config.optillm.version, "proxy"), None
        )

    def finish_release(self, directory: Path) -> None:
        """Complete a release, to start it."""
        files.copy_tree(locks.GUARD, directory / "guard")
        uv.compile_tree(directory / ".venv/bin/python", directory / "guard")
        files.make_directory(directory / "work")
        self._release = directory

    def build_full(self, directory: Path) -> None:
        """Install as OptiLLM's documentation says, with the missing module."""
        venv = directory / "venv"
        directory.mkdir(exist_ok=True)
        uv.make_venv(venv, self.interpreter.path)
        command = [
            find_uv_bin(),
            "pip",
            "install",
            "--quiet",
            "--python",
            str(venv / "bin/python"),
            *FULL,
        ]
        # in the root directory: in this project, uv would read its exclude-dependencies
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, cwd="/")
        self._full = venv


@contextmanager
def laboratory(full: bool) -> Iterator[Lab]:
    """A lab below /var/tmp. It is removed at the end."""
    place = Path(tempfile.mkdtemp(prefix="optictl-bench-", dir="/var/tmp"))
    place.chmod(0o755)
    try:
        with variables(UV_CACHE_DIR=str(place / "cache")):
            yield Lab(place, full)
    finally:
        say("removing what was installed")
        shutil.rmtree(place, ignore_errors=True)
