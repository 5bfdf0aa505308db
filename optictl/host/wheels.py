"""Wheels on the controller of a fleet: fetched for another platform, and optictl's own."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from optictl.host import files
from optictl.host.uv import failure

PACKAGE = Path(__file__).resolve().parent.parent
#: The beginning of time for zip: the same sources make the same wheel.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def cache() -> Path:
    """Where the controller keeps wheelhouses."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (
        (Path(base) if base.startswith("/") else Path.home() / ".cache") / "optictl" / "wheelhouses"
    )


def digests(directory: Path) -> dict[str, Path]:
    """SHA-256 -> the wheel that has it."""
    return {files.sha256(path): path for path in sorted(directory.glob("*.whl"))}


def download(
    requirements: str, directory: Path, python: str, platforms: Sequence[str], source: Path | None
) -> None:
    """Put the wheels of a hash lock into a directory, every hash checked, for another Python and platform than this one.

    `requirements` has no markers: pip would judge them by its own Python. `source`: a directory to take them from,
    instead of the index that pip is set up for.

    Raises:
        OptictlError: one could not be had: with pip's last words, and a remedy where they tell the cause.
    """
    with files.scratch() as scratch:
        lock = scratch / "lock.txt"
        files.write(lock, requirements, 0o644)
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-qq",
            "--disable-pip-version-check",
            "--no-input",
            "--no-deps",
            "--require-hashes",
            "--only-binary=:all:",
            "--implementation=cp",
            f"--python-version={python}",
            *(f"--platform={platform}" for platform in platforms),
            "--dest",
            str(directory),
            "--requirement",
            str(lock),
        ]
        if source is not None:
            command += ["--no-index", "--find-links", str(source)]
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd="/"
        )
    if result.returncode:
        raise failure("pip download", result.stderr or result.stdout)


def _own_files(templates: Path) -> dict[str, bytes]:
    """Name in the wheel -> content, of this optictl as it runs; it may be a wheel's or a checkout's."""
    found = {}
    for below, directory in (("optictl", PACKAGE), ("optictl/templates", templates)):
        for path in files.tree(directory):
            if "__pycache__" not in path.parts:
                found[f"{below}/{path.relative_to(directory)}"] = path.read_bytes()
    return found


def pack_optictl(directory: Path, templates: Path) -> Path:
    """The wheel of the optictl that runs, whether it was installed from one or not.

    Its build tag is a digest of all that it holds: another optictl of the same version does not take its place meanwhile.
    """
    distribution = importlib.metadata.distribution("optictl")
    information = f"optictl-{distribution.version}.dist-info"
    content = _own_files(templates)
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
