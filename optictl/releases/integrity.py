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
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from optictl.errors import ReleaseDamaged
from optictl.host import files, uv
from optictl.releases import release_record
from optictl.releases.release_record import Distribution, Python

STAMPS = "stamps.json"
_INCOMPLETE = "its release.json is missing or damaged"


def _site_packages(venv: Path) -> Path:
    return next((venv / "lib").glob("python3.*")) / "site-packages"


def distributions(venv: Path) -> dict[str, Distribution]:
    """name -> distribution, for every distribution in a virtual environment."""
    installed = {}
    for directory in sorted(_site_packages(venv).glob("*.dist-info")):
        name, version = directory.name.removesuffix(".dist-info").rsplit("-", 1)
        installed[name.lower().replace("_", "-")] = Distribution(
            version, files.sha256(directory / "RECORD")
        )
    return installed


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


def verified_stamps(venv: Path) -> dict[str, list[int] | None]:
    """path below site-packages -> stamp, for every file with a digest; every digest is verified.

    The stamp is None if it is too recent to show the next change.

    Raises:
        OptictlError: a file does not match its distribution's digest.
    """
    packages = _site_packages(venv)
    # stamp first, then read: a file that changes meanwhile differs from its stamp
    stamps = {
        name: files.stamp(f"{packages}/{name}")
        for record in _records(packages)
        for name, _ in _record(record)
    }
    if changed := _all_changed(packages):
        raise ReleaseDamaged(
            f"installed files do not match the digests of their packages: {a_few(changed)}",
            remedy="check the disk, empty uv's cache (uv cache clean), and install again",
        )
    return {
        name: stamp if stamp and files.settled(stamp[-1]) else None
        for name, stamp in stamps.items()
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
        changed = pool.map(
            lambda record: _changed(site_packages, record, touched), _records(site_packages)
        )
        return [name for names in changed for name in names]


def edited_files(directory: Path) -> list[str]:
    """The installed files of a release that differ from their package's digest.

    It reads those whose stamp changed since the proof.
    """
    return _all_changed(_site_packages(directory / ".venv"), _touched(directory))


def _changed(site_packages: Path, record: Path, touched: set[str] | None) -> list[str]:
    wrong = []
    for name, digest in _record(record):
        if touched is not None and name not in touched:
            continue
        try:
            present = (
                base64.urlsafe_b64encode(bytes.fromhex(files.sha256(site_packages / name)))
                .rstrip(b"=")
                .decode()
            )
        except OSError:
            present = ""
        if present != digest:
            wrong.append(name)
    return wrong


def interpreter_problem(directory: Path) -> str:
    """Why the interpreter of a release can no longer run it, or ""."""
    record = release_record.read(directory)
    return _INCOMPLETE if record is None else _interpreter_problem(directory, record.python)


def _interpreter_problem(directory: Path, built_with: Python) -> str:
    now = uv.version_of(directory / ".venv/bin/python")
    if now is None:
        return f"its interpreter {built_with.path} is missing or does not run"
    if now[:2] != built_with.minor:
        version = ".".join(map(str, now))
        return (
            f"its interpreter {built_with.path} was Python {built_with.version}, "
            f"now it is {version}"
        )
    # root's service runs as another user; a release that others cannot enter is private to a user
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
    record = release_record.read(directory)
    if record is None:
        return [_INCOMPLETE]
    if problem := _interpreter_problem(directory, record.python):
        return [problem]
    venv = directory / ".venv"
    wrong = _changed_distributions(record.distributions, distributions(venv))
    changed = _all_changed(_site_packages(venv), _touched(directory) if touched_only else None)
    own = own_files(directory)
    known = record.files
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


def _changed_distributions(
    built: Mapping[str, Distribution], installed: Mapping[str, Distribution]
) -> list[str]:
    wrong = []
    for name in sorted({*built, *installed}):
        before, now = built.get(name), installed.get(name)
        if now is None:
            wrong.append(f"{name} is missing")
        elif before is None:
            wrong.append(f"{name} {now.version} was added")
        elif now.version != before.version:
            wrong.append(f"{name} is {now.version}, not {before.version}")
        elif now != before:
            wrong.append(f"the file list of {name} was changed")
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
