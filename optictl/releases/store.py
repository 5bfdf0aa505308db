"""The stored releases: which exist, which is active, and switching between them.

A release is a directory `releases/ID` with `.venv/` (the unmodified wheel and its locked
dependencies), `guard/`, `work/` (the service's working directory) and `release.json`, which is
written last, after the proof. A directory without it is half-built and unusable. A broken release
is not repaired: the same release is rebuilt next to it, as `releases/ID.2`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from optictl.deployment.paths import Paths
from optictl.errors import NotInstalled
from optictl.guard import settings
from optictl.host import files
from optictl.releases import failures, integrity, release_record
from optictl.releases.failures import Failure
from optictl.releases.locks import ReleaseSpec
from optictl.releases.release_record import ReleaseRecord


@dataclass(frozen=True)
class Releases:
    """The releases on disk, read once.

    `records`: name of each proven release -> its record, oldest first. `half_built`: the
    directories that an interrupted build left behind. `previous`: the release that was active
    before. `failed`: those that were rolled back.
    """

    records: Mapping[str, ReleaseRecord]
    half_built: Sequence[Path]
    active: str | None
    previous: str | None
    failed: Mapping[str, Failure]

    def guard_flags(self, name: str) -> list[str]:
        """The flags that a release's guard knows.

        A release that is not built yet gets this guard.
        """
        return flags_of(self.records.get(name))


def read(paths: Paths) -> Releases:
    """Read what a plan needs to know about the releases; each release.json once."""
    places = sorted(paths.releases.iterdir()) if paths.releases.is_dir() else []
    read_records = {place: release_record.read(place) for place in places}
    records = {place.name: record for place, record in read_records.items() if record is not None}
    built = sorted(records, key=lambda name: records[name].built)
    active = _target(paths, paths.current)
    previous = _target(paths, paths.previous)
    active = active if active in records else None
    return Releases(
        {name: records[name] for name in built},
        [place for place in places if read_records[place] is None and place.is_dir()],
        active,
        previous if previous in records and previous != active else None,
        {name: failure for name in built if (failure := failures.of(paths.releases / name))},
    )


def standing(want: ReleaseSpec, paths: Paths, releases: Releases) -> tuple[ReleaseSpec, bool, str]:
    """Find a usable release for `want`.

    Returns the release with its directory name (existing or new), whether it exists and is intact,
    and why the active release cannot be used, or "".
    """
    same = [name for name, record in releases.records.items() if record.id == want.id]
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
    """The flags that a release's guard knows; a release that is not built yet gets this guard."""
    return flags_of(release_record.read(paths.releases / name))


def flags_of(record: ReleaseRecord | None) -> list[str]:
    """The flags that the guard of this release knows; None is one that this optictl will build."""
    return settings.flags() if record is None else list(record.flags)


def complete(paths: Paths) -> list[str]:
    """The names of the proven releases, oldest first."""
    if not paths.releases.is_dir():
        return []
    proven = [
        (p.name, record)
        for p in sorted(paths.releases.iterdir())
        if (record := release_record.read(p)) is not None
    ]
    return [name for name, _ in sorted(proven, key=lambda pair: pair[1].built)]


def active_release(paths: Paths) -> str | None:
    """The name of the release that the link `current` points to."""
    return _linked(paths, paths.current)


def require_active(paths: Paths) -> str:
    """The name of the active release.

    Raises:
        NotInstalled: there is none.
    """
    name = active_release(paths)
    if name is None:
        raise NotInstalled(
            f"no release is active at {paths.current}", remedy=paths.command("install")
        )
    return name


def _linked(paths: Paths, link: Path) -> str | None:
    name = _target(paths, link)
    return name if name is not None and release_record.read(paths.releases / name) else None


def _target(paths: Paths, link: Path) -> str | None:
    """The name of the directory below `releases` that a link points to."""
    if files.file_facts(link).kind != "link":
        return None
    target = link.resolve()
    return target.name if target.parent == paths.releases.resolve() else None


def switch(paths: Paths, release: str) -> None:
    """Make a release the active one, atomically. `rollback` returns to the one before it."""
    current = active_release(paths)
    if current is not None and current != release:
        files.replace_link(paths.previous, Path("releases") / current)
        failures.forget(paths.releases / current)  # it has served since
    # relative, so that the links of a deployment under --root also work under another path
    files.replace_link(paths.current, Path("releases") / release)


def restore(paths: Paths, active: str | None, previous: str | None) -> None:
    """Put both links back to what they were, as after a roll-back."""
    for link, name in ((paths.current, active), (paths.previous, previous)):
        if name is None:
            files.remove(link)
        elif _target(paths, link) != name:
            files.replace_link(link, Path("releases") / name)


def previous(paths: Paths) -> str | None:
    """The release that was active before, if it still exists."""
    name = _linked(paths, paths.previous)
    return None if name == active_release(paths) else name


def surplus(
    names: Sequence[str],
    keep: int,
    current: str | None,
    previous: str | None,
    failed: Collection[str] = (),
) -> list[str]:
    """Which of these releases (oldest first) to remove so that `keep` stay. Pure.

    The active release stays first, then the previous one, then the newest ones, failed ones last.
    """
    ranked = [name for name in (current, previous) if name is not None and name in names]
    others = [name for name in reversed(names) if name not in ranked]
    ranked += sorted(others, key=lambda name: name in failed)
    return [name for name in ranked[max(1, keep) :] if name != current]


@dataclass(frozen=True)
class StoredRelease:
    """One release on disk.

    `state`: active, previous, kept, failed or half-built. `size`: in bytes. `closure`: the
    beginning of the lock file's digest. `failure`: why and when it was rolled back.
    """

    name: str
    version: str
    profile: str
    closure: str
    built: str
    size: int
    state: str
    failure: Failure | None = None

    def as_dict(self) -> dict[str, Any]:
        """The JSON shape: a result with these fields as its data."""
        return {
            "id": self.name,
            "status": "fail" if self.state in ("failed", "half-built") else "pass",
            "data": asdict(self),
        }


def listing(paths: Paths) -> list[StoredRelease]:
    """Every release on disk, the newest first, then the half-built ones."""
    releases = read(paths)
    states = {releases.active: "active", releases.previous: "previous"}
    stored = []
    for name, record in reversed(list(releases.records.items())):
        failure = releases.failed.get(name)
        stored.append(
            StoredRelease(
                name,
                record.optillm,
                record.profile,
                record.lock_sha256[:12],
                record.built,
                files.size(paths.releases / name),
                _state(states.get(name, "kept"), failure),
                failure,
            )
        )
    return stored + [
        StoredRelease(p.name, "", "", "", "", files.size(p), "half-built")
        for p in releases.half_built
    ]


def _state(place: str, failure: Failure | None) -> str:
    """The active release serves, whatever failed before."""
    return "failed" if failure and place != "active" else place


def remove(directory: Path) -> None:
    """Remove a release. An interrupted removal leaves a half-built release."""
    files.remove(directory / release_record.FILE)
    files.remove(directory)


def half_built(paths: Paths) -> list[Path]:
    """Directories that an interrupted build left behind."""
    if not paths.releases.is_dir():
        return []
    return [
        p for p in sorted(paths.releases.iterdir()) if p.is_dir() and release_record.read(p) is None
    ]
