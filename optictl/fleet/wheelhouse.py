"""One wheelhouse per platform, on the controller: every wheel that a host of it needs, optictl's own too."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from optictl import __version__
from optictl.deployment import render
from optictl.errors import Locked, OptictlError
from optictl.fleet.targets import Pin, Target, pins
from optictl.host import files, wheels
from optictl.releases import locks


@dataclass(frozen=True)
class File:
    """One file of a wheelhouse: its name, SHA-256 in hex and bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Wheelhouse:
    """What a host of one platform needs for one version of OptiLLM.

    `program` identifies the optictl that `requirements` (a file's name) makes.
    """

    target: str
    version: str
    directory: Path
    program: str
    requirements: str
    files: list[File]

    def as_dict(self) -> dict[str, Any]:
        """As the role takes it, in variables."""
        fields = {**asdict(self), "directory": str(self.directory)}
        return {**fields, "files": [asdict(one) for one in self.files]}


def make(
    target: Target, version: str, profile: str, source: Path | None, say: Callable[[str], None]
) -> Wheelhouse:
    """The wheelhouse of a target, with the closure of one OptiLLM version; what is there already is kept.

    `source`: a directory that already has the wheels, instead of pip's index.

    Raises:
        OptictlError: there is no lock for a version, or a wheel could not be had.
    """
    directory = wheels.cache() / target.name
    files.make_directory(directory)
    own = pins((locks.shipped_locks() / "optictl.txt").read_text(), target)
    wanted = [*own, *pins(_lock(version, profile), target)]
    try:
        with files.exclusive(directory / ".lock"):
            found = _complete(directory, target, wanted, source, say)
            wheel = wheels.pack_optictl(directory, render.template_directory())
            digest = files.sha256(wheel)
            text = "".join(
                f"{pin.line}\n" for pin in [*own, Pin("optictl", __version__, frozenset({digest}))]
            )
            mark = hashlib.sha256(text.encode()).hexdigest()[:12]
            requirements = directory / f"optictl-{mark}.txt"
            files.write(requirements, text, 0o644)
    except Locked as holder:
        raise Locked(f"{holder} is filling {directory}", remedy="wait for it to end") from None
    everything = sorted({*found, wheel, requirements})
    return Wheelhouse(
        target.name,
        version,
        directory,
        f"{__version__}-{mark}",
        requirements.name,
        [File(path.name, files.sha256(path), path.stat().st_size) for path in everything],
    )


def _lock(version: str, profile: str) -> str:
    path = locks.shipped_locks() / locks.lock_name(version, profile)
    if not path.is_file():
        raise OptictlError(
            f"this optictl holds no lock for OptiLLM {version} (profile {profile})",
            remedy=f"name one of {', '.join(locks.locked_versions(None, profile))}",
        )
    return path.read_text()


def _complete(
    directory: Path,
    target: Target,
    wanted: Sequence[Pin],
    source: Path | None,
    say: Callable[[str], None],
) -> list[Path]:
    """The wheel of every pin; those that are missing or not what the lock says are fetched."""
    have = wheels.digests(directory)
    missing = [pin for pin in wanted if not pin.digests & have.keys()]
    if missing:
        say(f"fetching {len(missing)} wheels for {target.name}")
        # two locks may pin one package differently, which pip takes for a conflict
        for batch in _batches(missing):
            requirements = "".join(f"{pin.line}\n" for pin in batch)
            try:
                wheels.download(
                    requirements,
                    directory,
                    ".".join(map(str, target.python)),
                    target.platforms,
                    source,
                )
            except OptictlError as error:
                remedy = (
                    error.remedy
                    or "look whether pip reaches its index here, or give --wheelhouse DIR"
                )
                what = f"the wheels for {target.name} cannot be had: {error.what}"
                raise error.reworded(what, remedy) from None
        have = wheels.digests(directory)
        if still := [pin.name for pin in wanted if not pin.digests & have.keys()]:
            raise OptictlError(
                f"no wheel that the lock knows: {', '.join(still)}", remedy=f"remove {directory}"
            )
    return [have[min(pin.digests & have.keys())] for pin in wanted]


def _batches(missing: Sequence[Pin]) -> list[list[Pin]]:
    """The pins in as few lists as it takes for no list to have two versions of one package."""
    batches: list[dict[str, Pin]] = []
    for pin in missing:
        free = next((batch for batch in batches if batch.get(pin.name, pin) == pin), None)
        if free is None:
            batches.append(free := {})
        free[pin.name] = pin
    return [list(batch.values()) for batch in batches]
