"""The integrity of a proven release: what it consists of, and what changed since its proof.

release.json lists the distributions with the digests of their file lists (RECORD), and the files
that optictl added. stamps.json holds the inode, size and times of every file of the
distributions, so that unchanged files need not be read again.
"""

from __future__ import annotations

import base64
import csv
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from optictl.errors import OptictlError
from optictl.host import files, uv

STAMPS = "stamps.json"


def record(directory: Path) -> dict[str, Any] | None:
    """A release's release.json, or None if it is missing or broken: the release is incomplete."""
    try:
        data = json.loads((directory / "release.json").read_text())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _site_packages(venv: Path) -> Path:
    return next((venv / "lib").glob("python3.*")) / "site-packages"


def distributions(venv: Path) -> dict[str, dict[str, str]]:
    """name -> version and digest of RECORD, for every distribution in a virtual environment."""
    found = {}
    for directory in sorted(_site_packages(venv).glob("*.dist-info")):
        name, version = directory.name.removesuffix(".dist-info").rsplit("-", 1)
        found[name.lower().replace("_", "-")] = {
            "version": version,
            "record_sha256": files.sha256(directory / "RECORD"),
        }
    return found


def own_files(directory: Path) -> dict[str, str]:
    """path below the release -> digest, for the files of the guard and the plugins."""
    sources = [
        p for part in ("guard", "work") for p in files.tree(directory / part) if p.suffix == ".py"
    ]
    return {str(p.relative_to(directory)): files.sha256(p) for p in sources}


def _record(path: Path) -> Iterator[tuple[str, str]]:
    """(path below site-packages, digest) of each file in a RECORD, bytecode excluded."""
    with path.open(newline="") as file:
        for row in csv.reader(file):
            # compiling on this machine replaces the bytecode of a wheel (numpy 2.2.6 has some)
            if len(row) == 3 and row[1].startswith("sha256=") and not row[0].endswith(".pyc"):
                yield row[0], row[1].removeprefix("sha256=")


def stamps(venv: Path) -> dict[str, list[int] | None]:
    """path below site-packages -> stamp, for every file with a digest; every digest is verified.

    The stamp is None if it is too recent to show the next change.

    Raises:
        OptictlError: a file does not match its distribution's digest.
    """
    packages = _site_packages(venv)
    # stamp first, then read: a file that changes meanwhile differs from its stamp
    found = {
        name: files.stamp(f"{packages}/{name}")
        for record in _records(packages)
        for name, _ in _record(record)
    }
    if changed := _all_changed(packages):
        raise OptictlError(
            f"installed files do not match the digests of their packages: {a_few(changed)}",
            remedy="check the disk, empty uv's cache (uv cache clean), and install again",
        )
    return {
        name: stamp if stamp and files.settled(stamp[-1]) else None for name, stamp in found.items()
    }


def _touched(directory: Path) -> set[str] | None:
    """The files whose stamp changed since the proof; None if the release has no stamps."""
    try:
        noted = dict(json.loads((directory / STAMPS).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    packages = _site_packages(directory / ".venv")
    return {
        name
        for name, stamp in noted.items()
        if stamp is None or files.stamp(f"{packages}/{name}") != stamp
    }


def _records(site_packages: Path) -> list[Path]:
    return sorted(site_packages.glob("*.dist-info/RECORD"))


def _all_changed(site_packages: Path, touched: set[str] | None = None) -> list[str]:
    """The files that differ from their digest, among the `touched` ones or among all."""
    if touched is not None and not touched:
        return []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing releases the GIL
        found = pool.map(
            lambda record: _changed(site_packages, record, touched), _records(site_packages)
        )
        return [name for names in found for name in names]


def _changed(site_packages: Path, record: Path, touched: set[str] | None) -> list[str]:
    wrong = []
    for name, digest in _record(record):
        if touched is not None and name not in touched:
            continue
        try:
            found = (
                base64.urlsafe_b64encode(bytes.fromhex(files.sha256(site_packages / name)))
                .rstrip(b"=")
                .decode()
            )
        except OSError:
            found = ""
        if found != digest:
            wrong.append(name)
    return wrong


def interpreter_problem(directory: Path) -> str:
    """Why the interpreter of a release can no longer run it, or ""."""
    python = (record(directory) or {}).get("python", {})
    built_on = str(python.get("version", ""))
    now = uv.version_of(directory / ".venv/bin/python")
    if now is None:
        return f"its interpreter {python.get('path', '')} is missing or does not run"
    if now[:2] != tuple(map(int, built_on.split(".")[:2])):
        version = ".".join(map(str, now))
        return (
            f"its interpreter {python.get('path', '')} was Python {built_on}, now it is {version}"
        )
    # root's service runs as another user; a release that others cannot enter is a user's private one
    meant_for_others = os.geteuid() == 0 and files.closed_to_others([directory]) is None
    if meant_for_others and (closed := files.closed_to_others([directory / ".venv/bin/python"])):
        return (
            f"the service's user cannot execute its interpreter: {closed} is closed to other users"
        )
    return ""


def integrity_problems(
    directory: Path, plugins: bool = True, touched_only: bool = False
) -> list[str]:
    """What changed since this release was proven: interpreter, distributions, files, owners.

    `plugins`: also report files that were added to the working directory. `touched_only`: of the
    distributions' files, read only those whose stamp changed.
    """
    if problem := interpreter_problem(directory):
        return [problem]
    data, venv = record(directory) or {}, directory / ".venv"
    expected, found = data.get("distributions", {}), distributions(venv)
    wrong = []
    for name in sorted({*expected, *found}):
        if name not in found:
            wrong.append(f"{name} is missing")
        elif name not in expected:
            wrong.append(f"{name} {found[name]['version']} was added")
        elif found[name]["version"] != expected[name]["version"]:
            wrong.append(f"{name} is {found[name]['version']}, not {expected[name]['version']}")
        elif found[name] != expected[name]:
            wrong.append(f"the file list of {name} was changed")
    changed = _all_changed(_site_packages(venv), _touched(directory) if touched_only else None)
    own = own_files(directory)
    known = data.get("files", {})
    changed += sorted(
        name
        for name in {*own, *known}
        if own.get(name) != known.get(name)
        and (plugins or name in known or not name.startswith("work/"))
    )
    owner = files.file_facts(directory.parent).uid
    if foreign := next(files.not_owned_by(directory, owner), None):
        wrong.append(
            f"{foreign.relative_to(directory.parent)} belongs to uid "
            f"{files.file_facts(foreign).uid}, not {owner}"
        )
    if changed:
        wrong.append(f"changed since installation: {a_few(changed)}")
    return wrong


def a_few(names: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def uncompiled(directory: Path) -> list[str]:
    """The packages of a release, including the guard, whose first file has no bytecode."""
    site_packages = _site_packages(directory / ".venv")
    tag = (
        f"__init__.cpython-{site_packages.parent.name.removeprefix('python').replace('.', '')}.pyc"
    )
    sources = [*sorted(site_packages.glob("*/__init__.py")), directory / "guard/__init__.py"]
    return [
        source.parent.name
        for source in sources
        if not (source.parent / "__pycache__" / tag).exists()
    ]
