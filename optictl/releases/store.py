"""Releases: build beside what runs, prove, switch.

A release is a directory `releases/ID` with `.venv/` (the untouched wheel and its locked
closure), `guard/`, `work/` (the service's working directory) and, written last and only
after the proof, `release.json`. A directory without it is half-built and of no use. One that
is broken is not mended: the same is built beside it, as `releases/ID.2`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from optictl.deployment.paths import Paths
from optictl.guard import settings
from optictl.host import files
from optictl.releases import integrity
from optictl.releases.locks import Wanted


@dataclass(frozen=True)
class Releases:
    """The releases on the disk, read once.

    `records`: the name of each proven release -> its release.json, in the order in which they were built. `half_built` are
    directories that an interrupted build left behind. `previous` is the release that was active before.
    """

    records: Mapping[str, dict[str, Any]]
    half_built: Sequence[Path]
    active: str | None
    previous: str | None

    def guard_flags(self, name: str) -> list[str]:
        """The flags that a release's guard knows; one that is still to be built has this optictl's guard."""
        return list(self.records.get(name, {}).get("flags", settings.flags()))


def read(paths: Paths) -> Releases:
    """Read what a plan has to know about the releases: each release.json once."""
    places = sorted(paths.releases.iterdir()) if paths.releases.is_dir() else []
    read_records = {place: integrity.record(place) for place in places}
    records = {place.name: record for place, record in read_records.items() if record is not None}
    built = sorted(records, key=lambda name: str(records[name].get("built")))
    active = _target(paths, paths.current)
    previous = _target(paths, paths.previous)
    active = active if active in records else None
    return Releases(
        {name: records[name] for name in built},
        [place for place in places if read_records[place] is None and place.is_dir()],
        active,
        previous if previous in records and previous != active else None,
    )


def standing(want: Wanted, paths: Paths, releases: Releases) -> tuple[Wanted, bool, str]:
    """Where the wanted release is or is to be built, whether it is there, and what is wrong with the active one."""
    same = [name for name, record in releases.records.items() if record.get("id") == want.id]
    reason = ""
    for name in sorted(same, key=lambda name: name != releases.active):
        wrong = integrity.integrity_problems(paths.releases / name)
        if not wrong:
            return replace(want, name=name), True, ""
        if name == releases.active:
            reason = f"the active release is broken: {wrong[0]}"
    free = (
        name for name in (want.id, *(f"{want.id}.{n}" for n in range(2, 1000))) if name not in same
    )
    return replace(want, name=next(free)), False, reason


def guard_flags(paths: Paths, name: str) -> list[str]:
    """The flags that a release's guard knows; one that is still to be built has this optictl's guard."""
    return list((integrity.record(paths.releases / name) or {}).get("flags", settings.flags()))


def complete(paths: Paths) -> list[str]:
    """The names of the releases that were proven, in the order in which they were built."""
    if not paths.releases.is_dir():
        return []
    found = [
        (p.name, data)
        for p in sorted(paths.releases.iterdir())
        if (data := integrity.record(p)) is not None
    ]
    return [name for name, _ in sorted(found, key=lambda pair: str(pair[1].get("built")))]


def active_release(paths: Paths) -> str | None:
    """The name of the release that `current` points at."""
    return _linked(paths, paths.current)


def _linked(paths: Paths, link: Path) -> str | None:
    name = _target(paths, link)
    return name if name is not None and integrity.record(paths.releases / name) else None


def _target(paths: Paths, link: Path) -> str | None:
    """The name of the directory below `releases` that a link points at."""
    if files.file_facts(link).kind != "link":
        return None
    target = link.resolve()
    return target.name if target.parent == paths.releases.resolve() else None


def switch(paths: Paths, release: str) -> None:
    """Put a release in force, in one step. The one before it is what `rollback` goes to."""
    current = active_release(paths)
    if current is not None and current != release:
        files.replace_link(paths.previous, Path("releases") / current)
    # relative, so that a deployment under --root can be looked at from elsewhere
    files.replace_link(paths.current, Path("releases") / release)


def previous(paths: Paths) -> str | None:
    """The release that was in force before, if it is still there."""
    name = _linked(paths, paths.previous)
    return None if name == active_release(paths) else name


def surplus(
    names: Sequence[str], keep: int, current: str | None, previous: str | None
) -> list[str]:
    """Which of these releases, oldest first, to remove so that `keep` stay. Pure.

    The one in force comes first, then the one before it, then the newest.
    """
    ranked = [name for name in (current, previous) if name is not None and name in names]
    ranked += [name for name in reversed(names) if name not in ranked]
    return [name for name in ranked[max(1, keep) :] if name != current]


@dataclass(frozen=True)
class Facts:
    """One release on the disk. `state`: in force, previous, kept or half-built; `size` in bytes, `closure` of the lock."""

    name: str
    version: str
    profile: str
    closure: str
    built: str
    size: int
    state: str

    def as_dict(self) -> dict[str, Any]:
        """The JSON shape: a result whose data are these facts."""
        return {
            "id": self.name,
            "status": "fail" if self.state == "half-built" else "pass",
            "data": asdict(self),
        }


def listing(paths: Paths) -> list[Facts]:
    """Every release on the disk, the newest first, then what is half-built."""
    states = {active_release(paths): "in force", previous(paths): "previous"}
    found = []
    for name in reversed(complete(paths)):
        data, directory = integrity.record(paths.releases / name) or {}, paths.releases / name
        found.append(
            Facts(
                name,
                data.get("optillm", ""),
                data.get("profile", ""),
                data.get("lock_sha256", "")[:12],
                data.get("built", ""),
                files.size(directory),
                states.get(name, "kept"),
            )
        )
    return found + [
        Facts(p.name, "", "", "", "", files.size(p), "half-built") for p in half_built(paths)
    ]


def remove(directory: Path) -> None:
    """Take a release away. A removal that is interrupted leaves a half-built one."""
    files.remove(directory / "release.json")
    files.remove(directory)


def half_built(paths: Paths) -> list[Path]:
    """Directories that an interrupted build left behind."""
    if not paths.releases.is_dir():
        return []
    return [
        p for p in sorted(paths.releases.iterdir()) if p.is_dir() and integrity.record(p) is None
    ]
