"""install: optictl's profile `proxy`, compared with a full install of OptiLLM by `uv pip`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.download import metered
from benchmarks.figures import Part, Row, figure
from benchmarks.lab import Lab, say, variables

TITLE = "Install"
RUNS = 3
_MB = 1e6
NOTES = [
    "optictl: uv with the shipped lock, every hash checked, files copied out of uv's cache, "
    "bytecode compiled, all "
    "through optictl's own code. Full: `uv pip install optillm==0.3.12 math-verify` with uv's "
    "defaults (hard links, no "
    "bytecode). Both: a new virtual environment on the same interpreter, an empty uv cache on the "
    "same disk.",
    "Downloaded: the bytes through a counting tunnel on 127.0.0.1, indexes included. The tunnel "
    "makes "
    "both sides a little slower. Wall time depends on the network.",
    "On disk: apparent sizes of the files in the virtual environment, each inode once, uv's cache "
    "not counted. With "
    "bytecode, which its first start writes, the full install would be larger.",
    "A release also contains the guard (less than 0.2 MB).",
]


@dataclass(frozen=True)
class Measured:
    """The cost of an installation."""

    seconds: float
    downloaded: float | None
    disk: float
    packages: int


def disk(directory: Path) -> float:
    """The size of the files below a directory in MB: apparent sizes, each inode once."""
    inodes = {}
    for path in directory.rglob("*"):
        info = path.lstat()
        if not path.is_dir() or path.is_symlink():
            inodes[info.st_dev, info.st_ino] = info.st_size
    return sum(inodes.values()) / _MB


def _measure(build: Callable[[], None], venv: Path, cache: Path) -> Measured:
    """Measure `build`, which fills `venv`. uv's cache is empty and on the same file system."""
    with variables(UV_CACHE_DIR=str(cache)), metered() as meter:
        since = time.perf_counter()
        build()
        seconds = time.perf_counter() - since
    packages = len(list(venv.glob("lib/python3*/site-packages/*.dist-info")))
    received = None if meter.received is None else meter.received / _MB
    return Measured(seconds, received, disk(venv), packages)


def _closure(lab: Lab, run: int) -> Measured:
    directory, cache = lab.place / "release", lab.place / f"cache-{run}"
    shutil.rmtree(directory, ignore_errors=True)
    result = _measure(lambda: lab.build_closure(directory / ".venv"), directory / ".venv", cache)
    shutil.rmtree(cache)
    return result


def _full(lab: Lab) -> Measured:
    directory = lab.place / "full"
    result = _measure(lambda: lab.build_full(directory), directory / "venv", directory / "cache")
    shutil.rmtree(directory / "cache")
    return result


def measure(lab: Lab) -> Part:
    """Three runs of optictl, and one full install between the first and the second."""
    ours: list[Measured] = []
    other: list[Measured] = []
    for run in range(RUNS):
        say(f"install: the locked closure, run {run + 1} of {RUNS}")
        ours.append(_closure(lab, run))
        if run == 0 and lab.wants_full:
            say("install: the full install, about 7 GB")
            other.append(_full(lab))
    lab.finish_release(lab.place / "release")

    def row(what: str, unit: str, name: str, limit: float | None = None) -> Row:
        values = [figure(getattr(one, name) for one in side) for side in (ours, other)]
        return Row(what, unit, values[0], "full install", values[1], limit)

    return Part(
        [
            row("wall time", "s", "seconds"),
            row("downloaded", "MB", "downloaded"),
            row("on disk", "MB", "disk", 1 / 15),
            row("packages", "number", "packages"),
        ],
        NOTES,
    )
