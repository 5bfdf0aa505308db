"""The stored releases: which exist, which is active, and switching between them.

A release is a directory `releases/ID` with `.venv/` (the unmodified wheel and its locked
dependencies), `guard/`, `work/` (the service's working directory) and `release.json`, which is
written last, after the proof. A directory without it is half-built and unusable. A broken release
is not repaired: the same release is rebuilt next to it, as `releases/ID.2`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from optictl.deployment.paths import Paths
from optictl.errors import NotInstalled
from optictl.guard import settings
from optictl.host import files
from optictl.releases import activations, failures, integrity, release_record, verification
from optictl.releases.failures import Failure
from optictl.releases.locks import ReleaseSpec
from optictl.releases.release_record import ReleaseRecord
from optictl.releases.verification import Verification


@dataclass(frozen=True)
class Links:
    """The releases that matter beside the stored ones.

    `previous`: the last proven release before the active one. `linked`: what its link points to,
    which follows once the active one is proven (`is_proven`).
    """

    active: str | None
    previous: str | None
    linked: str | None
    is_proven: bool

    def previous_of(self, name: str) -> str | None:
        """The previous release once this one is active and proven. Never an unproven one."""
        if self.is_proven and self.active not in (None, name):
            return self.active
        known = (self.previous, self.linked)
        return next((release for release in known if release not in (None, name)), None)


def _links(paths: Paths, is_complete: Callable[[str], bool]) -> Links:
    targets = (_target(paths, link) for link in (paths.current, paths.previous))
    active, linked = (name if name and is_complete(name) else None for name in targets)
    activation = activations.of(paths.releases / active) if active else None
    previous = activation.replaced if activation else linked
    is_other = previous is not None and previous != active and is_complete(previous)
    return Links(active, previous if is_other else None, linked, activation is None)


def links(paths: Paths) -> Links:
    """Which releases are the active and the previous one."""
    return _links(paths, lambda name: release_record.read(paths.releases / name) is not None)


@dataclass(frozen=True)
class Releases:
    """The releases on disk, read once.

    `records`: name of each proven release -> its record, oldest first. `half_built`: the
    directories that an interrupted build left behind. `failed`: those that were rolled back.
    """

    records: Mapping[str, ReleaseRecord]
    half_built: Sequence[Path]
    links: Links
    failed: Mapping[str, Failure]

    @property
    def active(self) -> str | None:
        return self.links.active

    @property
    def previous(self) -> str | None:
        return self.links.previous

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
    return Releases(
        {name: records[name] for name in built},
        [place for place in places if read_records[place] is None and place.is_dir()],
        _links(paths, lambda name: name in records),
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
    return links(paths).active


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


def _target(paths: Paths, link: Path) -> str | None:
    """The name of the directory below `releases` that a link points to."""
    if files.file_facts(link).kind != "link":
        return None
    target = link.resolve()
    return target.name if target.parent == paths.releases.resolve() else None


def switch(paths: Paths, release: str) -> None:
    """Make a release the active one, atomically. It is not proven until `confirm`."""
    activations.record(paths.releases / release, links(paths).previous_of(release))
    # relative, so that the links of a deployment under --root also work under another path
    files.replace_link(paths.current, Path("releases") / release)


def confirm(paths: Paths) -> None:
    """The active release passed the proof that follows its activation.

    Only now is the release that it replaced the previous one: a kill before the proof must not make
    an unproven release the one that `rollback` returns to.
    """
    now = links(paths)
    if now.active is None or now.is_proven:
        return
    _link(paths.previous, now.previous)
    failures.forget(paths.releases / now.active)
    activations.forget(paths.releases / now.active)


def restore(paths: Paths, active: str | None, previous: str | None) -> None:
    """Put both links back to what they were, as after a roll-back."""
    _link(paths.current, active)
    _link(paths.previous, previous)


def _link(link: Path, name: str | None) -> None:
    target = Path("releases") / name if name is not None else None
    if target is None:
        files.remove(link)
    elif not link.is_symlink() or link.readlink() != target:
        files.replace_link(link, target)


def previous(paths: Paths) -> str | None:
    """The last proven release before the active one, if it still exists."""
    return links(paths).previous


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
    `verification`: whether the guard's promises hold on it.
    """

    name: str
    version: str
    profile: str
    closure: str
    built: str
    size: int
    state: str
    failure: Failure | None = None
    verification: Verification | None = None

    @property
    def is_usable(self) -> bool:
        """Whether it may be activated."""
        refused = self.verification is not None and self.verification.state == "refused"
        return self.state not in ("failed", "half-built") and not refused

    def as_dict(self) -> dict[str, Any]:
        """The JSON shape: a result with these fields as its data."""
        return {
            "id": self.name,
            "status": "pass" if self.is_usable else "fail",
            "data": asdict(self),
        }


def listing(paths: Paths) -> list[StoredRelease]:
    """Every release on disk, the newest first, then the half-built ones."""
    releases = read(paths)
    states = {releases.active: "active", releases.previous: "previous"}
    stored, strategies = [], verification.enabled(paths)
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
                verification.of(paths.releases / name, record, strategies),
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
