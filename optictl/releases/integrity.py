"""A proven release: what it consists of, and what is not as it was on the day of its proof.

release.json names the distributions with the digests of their lists of files (RECORD), and the files of optictl's own.
stamps.json has how every file of the distributions looked on the disk, so that an untouched one need not be read again.
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
    """A release's release.json, or None when it is missing or broken: the release is half-built."""
    try:
        data = json.loads((directory / "release.json").read_text())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _site_packages(venv: Path) -> Path:
    return next((venv / "lib").glob("python3.*")) / "site-packages"


def distributions(venv: Path) -> dict[str, dict[str, str]]:
    """name -> version and the digest of RECORD, for every distribution installed in a venv."""
    found = {}
    for directory in sorted(_site_packages(venv).glob("*.dist-info")):
        name, version = directory.name.removesuffix(".dist-info").rsplit("-", 1)
        found[name.lower().replace("_", "-")] = {
            "version": version,
            "record_sha256": files.sha256(directory / "RECORD"),
        }
    return found


def own_files(directory: Path) -> dict[str, str]:
    """path below the release -> digest, for the guard and the plugins."""
    sources = [
        p for part in ("guard", "work") for p in files.tree(directory / part) if p.suffix == ".py"
    ]
    return {str(p.relative_to(directory)): files.sha256(p) for p in sources}


def _record(path: Path) -> Iterator[tuple[str, str]]:
    """path below site-packages, digest: the lines of a RECORD that carry one, but for bytecode."""
    with path.open(newline="") as file:
        for row in csv.reader(file):
            # bytecode is made on this machine: compiling replaces what a wheel brought (numpy 2.2.6 brings one)
            if len(row) == 3 and row[1].startswith("sha256=") and not row[0].endswith(".pyc"):
                yield row[0], row[1].removeprefix("sha256=")


def stamps(venv: Path) -> dict[str, list[int] | None]:
    """path below site-packages -> its stamp, for every file with a digest, each of which was seen to be right.

    A stamp that cannot tell the next touch is None.

    Raises:
        OptictlError: a file is not what its distribution says.
    """
    packages = _site_packages(venv)
    # taken before the reading: what is written meanwhile differs from its stamp
    found = {
        name: files.stamp(f"{packages}/{name}")
        for record in _records(packages)
        for name, _ in _record(record)
    }
    if changed := _all_changed(packages):
        raise OptictlError(
            f"what was installed is not what its distributions say: {a_few(changed)}",
            remedy="empty uv's cache (uv cache clean), look after the disk, and install again",
        )
    return {
        name: stamp if stamp and files.settled(stamp[-1]) else None for name, stamp in found.items()
    }


def _touched(directory: Path) -> set[str] | None:
    """The files that were touched since the release was proven; None where nobody noted how they were."""
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
    """The files that differ from their distribution's digest, of those that were touched, or of all."""
    if touched is not None and not touched:
        return []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing lets go of the GIL
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
    """Why the Python that a release was built on cannot run it any more, or ""."""
    python = (record(directory) or {}).get("python", {})
    built_on = str(python.get("version", ""))
    now = uv.version_of(directory / ".venv/bin/python")
    if now is None:
        return f"its interpreter {python.get('path', '')} is gone or does not run"
    if now[:2] != tuple(map(int, built_on.split(".")[:2])):
        return f"its interpreter {python.get('path', '')} was Python {built_on} and is {'.'.join(map(str, now))} now"
    # root's service runs as somebody else; a release that others may not enter is a user's own
    meant_for_others = os.geteuid() == 0 and files.closed_to_others([directory]) is None
    if meant_for_others and (closed := files.closed_to_others([directory / ".venv/bin/python"])):
        return f"its interpreter cannot be executed by the service's user: {closed} is closed to others"
    return ""


def integrity_problems(
    directory: Path, plugins: bool = True, touched_only: bool = False
) -> list[str]:
    """What is not as it was when this release was proven: interpreter, distributions, every file with a digest, owners.

    `plugins`: also those that were added to its working directory. `touched_only`: a distribution's file is read where
    its stamp is no longer the one of that day, in place of every one.
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
            f"{foreign.relative_to(directory.parent)} belongs to uid {files.file_facts(foreign).uid}, not {owner}"
        )
    if changed:
        wrong.append(f"changed since installation: {a_few(changed)}")
    return wrong


def a_few(names: Sequence[str]) -> str:
    """The first three of many names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def uncompiled(directory: Path) -> list[str]:
    """The packages of a release, the guard among them, whose first file has no bytecode."""
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
