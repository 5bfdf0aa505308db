"""Wheels for other hosts: downloads for another platform, and the wheel of this optictl."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from optictl.host import files, uv
from optictl.host.uv import failure

PACKAGE = Path(__file__).resolve().parent.parent
_DOWNLOAD = (
    *("download", "--disable-pip-version-check", "--no-input", "--progress-bar=off"),
    *("--no-deps", "--require-hashes", "--only-binary=:all:", "--implementation=cp"),
)
#: What pip prints for each file: `Downloading numpy-2.2.6-...whl (16.8 MB)`.
_FILE = re.compile(
    r"^\s*(?:Downloading|Using cached|Processing) (?:\S*/)?(\S+\.whl)(?: \((\d[^)]*)\))?"
)
#: The shortest time between two reports, in seconds.
_REPORT_EVERY = 1.0
#: The earliest time of a zip entry. A constant time makes the wheel reproducible.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def cache() -> Path:
    """The directory where the controller keeps wheelhouses."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (
        (Path(base) if base.startswith("/") else Path.home() / ".cache") / "optictl" / "wheelhouses"
    )


def digests(directory: Path) -> dict[str, Path]:
    """The wheels in a directory: SHA-256 in hex -> path."""
    return {files.sha256(path): path for path in sorted(directory.glob("*.whl"))}


def download(
    requirements: str,
    directory: Path,
    python: str,
    platforms: Sequence[str],
    source: Path | None,
    say: Callable[[str], None],
) -> None:
    """Download the wheels of a lock for another Python and platform, every hash checked.

    `requirements`: the text of a lock without markers, because pip evaluates markers for its own
    Python. `source`: a directory that replaces the index.

    pip has its own settings of an index (pip.conf, `PIP_*`); those of uv win where they exist.

    Raises:
        OptictlError: pip failed. The error has the end of its output, and a remedy for a known
        cause.
    """
    with files.scratch() as scratch, _pip() as (pip, variables):
        lock = scratch / "lock.txt"
        files.write(lock, requirements, 0o644)
        command = [
            *pip,
            *_DOWNLOAD,
            f"--python-version={python}",
            *(f"--platform={platform}" for platform in platforms),
            "--dest",
            str(directory),
            "--requirement",
            str(lock),
        ]
        if source is not None:
            command += ["--no-index", "--find-links", str(source)]
        code, output = _watched(command, variables, requirements.count("\n"), say)
    if code:
        raise failure("pip download", output)


@contextmanager
def _pip() -> Iterator[tuple[list[str], dict[str, str]]]:
    """The command of a pip, and its environment. Without one here, uv provides a temporary one."""
    command = [sys.executable, "-m", "pip"]
    variables = {**os.environ, **uv.pip_settings(), "NO_COLOR": "1"}
    if importlib.util.find_spec("pip") is not None:
        yield command, variables
        return
    with uv.sources("pip>=24.1") as directory:
        yield command, {**variables, "PYTHONPATH": str(directory)}


def _watched(
    command: Sequence[str], variables: Mapping[str, str], total: int, say: Callable[[str], None]
) -> tuple[int, str]:
    """Run pip and report the files that it fetches. Returns its exit code and its other output."""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd="/",
        env=variables,
    ) as process:
        try:
            other = report(process.stdout or (), total, say)
        except BaseException:
            process.kill()  # a signal to this process alone does not reach pip
            raise
    return process.returncode, other


def report(lines: Iterable[str], total: int, say: Callable[[str], None]) -> str:
    """Report the files in pip's output as they come. Returns the other lines."""
    other, count, reported = "", 0, time.monotonic()
    for line in lines:
        if (file := _FILE.match(line)) is None:
            other += line
            continue
        count += 1
        if time.monotonic() - reported >= _REPORT_EVERY:
            reported = time.monotonic()
            say(f"{count} of {total}: {file[1]}{f', {file[2]}' if file[2] else ''}")
    return other


def _own_files(templates: Path) -> dict[str, bytes]:
    """The files of the running optictl: name in the wheel -> content."""
    contents = {}
    for below, directory in (("optictl", PACKAGE), ("optictl/templates", templates)):
        for path in files.tree(directory):
            if "__pycache__" not in path.parts:
                contents[f"{below}/{path.relative_to(directory)}"] = path.read_bytes()
    return contents


def pack_optictl(directory: Path, templates: Path, commit: str = "") -> Path:
    """Build a wheel of the running optictl in a directory, and return its path.

    `commit`: what a checkout is at. A wheel is away from its repository, and has it in a file.
    The build tag is a digest of the content. Two builds of one version therefore have two names.
    """
    distribution = importlib.metadata.distribution("optictl")
    information = f"optictl-{distribution.version}.dist-info"
    content = _own_files(templates)
    if commit:
        content["optictl/commit.txt"] = f"{commit}\n".encode()
    for name in ("METADATA", "entry_points.txt"):
        content[f"{information}/{name}"] = (distribution.read_text(name) or "").encode()
    content[f"{information}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: optictl\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    record = [
        f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in sorted(content.items())
    ]
    content[f"{information}/RECORD"] = "".join([*record, f"{information}/RECORD,,\n"]).encode()
    mark = hashlib.sha256(content[f"{information}/RECORD"]).hexdigest()[:12]
    wheel = directory / f"optictl-{distribution.version}-0{mark}-py3-none-any.whl"
    new = files.temporary(wheel)
    with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(content.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    new.replace(wheel)
    return wheel


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
