"""The versions of OptiLLM: how they are written, which of them work here, and which there are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from optictl.deployment.paths import Paths
from optictl.deployment.version_order import version_order
from optictl.errors import NoSuchVersion, OptictlError, UsageFailure
from optictl.host import uv
from optictl.releases import locks, store
from optictl.releases.store import StoredRelease
from optictl.releases.verification import Verification
from optictl.results import Status

_NUMBER = r"(0|[1-9][0-9]*)"
_FINAL = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}")
#: PEP 440: a pre-release, a development release, a post-release, and a local version.
_KINDS = (
    (re.compile(r"[^+]+\+.+"), "a local version"),
    (
        re.compile(r"[\d.]+[-_.]?(a|b|c|rc|alpha|beta|pre|preview|dev)[-_.]?\d*", re.I),
        "a pre-release",
    ),
    (re.compile(r"[\d.]+([-_.]?(post|rev|r)[-_.]?\d*|-\d+)", re.I), "a post-release"),
)
_TAGS = ("latest", "newest", "stable", "current", "main", "master", "head")


def is_older(version: str, other: str) -> bool:
    """Whether a version is older than another one. Pure."""
    return version_order(version) < version_order(other)


def problem(text: str) -> str:
    """Why a text is no final version of OptiLLM, or "". Pure."""
    if _FINAL.fullmatch(text):
        return ""
    if not text.strip():
        return "the version is empty"
    if text.lower() in _TAGS:
        return f"{text!r} is not a version: a release has one version, with one lock"
    if (meant := _meant(text)) is not None:
        return f"{text!r} is not how OptiLLM writes a version: write {meant}"
    for pattern, kind in _KINDS:
        if pattern.fullmatch(text):
            return f"{text!r} is {kind}; optictl installs final versions only"
    return f"{text!r} is not a version of OptiLLM: one has three numbers, such as 0.3.13"


def _meant(text: str) -> str | None:
    """The version that a text means that has more than it."""
    bare = re.sub(r"^(optillm)?\s*(===?|@)?\s*v?\.?", "", text.strip(), flags=re.I).strip()
    return bare if _FINAL.fullmatch(bare) else None


def refuse_malformed(text: str, paths: Paths, profile: str) -> None:
    """Raise UsageFailure unless the text is a final version."""
    if what := problem(text):
        bare = _meant(text)
        target = bare or locks.recommended(paths, profile)
        lists = f"{paths.command('upgrade --list')} shows the versions"
        remedy = f"{paths.command(f'upgrade {target}')}, or: {lists}" if target else lists
        raise UsageFailure(what, remedy)


def refuse_missing(version: str, paths: Paths, profile: str) -> None:
    """Raise NoSuchVersion if the index has no such version. Without an answer nothing is raised."""
    try:
        exists, newest = uv.has_version("optillm", version), uv.newest_version("optillm")
    except OptictlError:
        return
    if not exists:
        raise no_such_version(version, newest, paths, profile)


def no_such_version(version: str, newest: str, paths: Paths, profile: str) -> NoSuchVersion:
    """The error for a version that the index does not have."""
    known = f"; the newest one is {newest}" if newest else ""
    target = locks.recommended(paths, profile)
    lists = f"{paths.command('upgrade --list')} shows the versions"
    return NoSuchVersion(
        f"the package index has no OptiLLM {version}{known}",
        f"{paths.command(f'upgrade {target}')}, or: {lists}" if target else lists,
    )


#: `shipped` with optictl, or `kept` next to the configuration.
Lock = Literal["shipped", "kept", "none"]


@dataclass(frozen=True)
class Offer:
    """A version of OptiLLM that may be upgraded to, or could be.

    `release` and `state` are of the release that stands for it on this machine, "" without one.
    `newest`: it is the newest one on the index.
    """

    version: str
    lock: Lock
    verification: Verification
    release: str = ""
    state: str = ""
    newest: bool = False

    @property
    def status(self) -> Status:
        """`skip`: nothing is known about it here."""
        if self.state == "failed" or self.verification.state == "refused":
            return "fail"
        return "skip" if self.verification.state == "unknown" else "pass"

    def as_dict(self) -> dict[str, Any]:
        """The JSON shape."""
        return {"id": self.version, "status": self.status, "data": asdict(self)}


@dataclass(frozen=True)
class Offers:
    """Every version with a lock or a release, and the newest on the index, the newest first.

    `newest`: "" where the index could not be asked; `problem` says why.
    """

    versions: Sequence[Offer]
    newest: str
    problem: str


_SHIPPED = Verification("verified", "its lock is shipped: the guard's tests passed with it")
_KEPT = Verification("unknown", "no release was built from its lock")
_NO_LOCK = Verification("unknown", "it has no lock")


def read(paths: Paths, profile: str) -> Offers:
    """The versions of this deployment. Asks the index; without an answer the rest is known."""
    newest, why = "", ""
    try:
        newest = uv.newest_version("optillm")
    except OptictlError as error:
        why = error.what
    shipped, kept = locks.shipped_versions(profile), locks.kept_versions(paths, profile)
    stored = [one for one in store.listing(paths) if one.profile == profile]
    return Offers(offers(shipped, kept, stored, newest), newest, why)


def offers(
    shipped: Iterable[str], kept: Iterable[str], stored: Sequence[StoredRelease], newest: str
) -> list[Offer]:
    """Every version, the newest first. Pure. `stored` are the releases, the newest build first."""
    locked: dict[str, Lock] = {}
    locked.update(dict.fromkeys(shipped, "shipped"))
    locked.update(dict.fromkeys(kept, "kept"))
    versions = {*locked, *(release.version for release in stored), *([newest] if newest else [])}
    ordered = sorted(versions, key=version_order, reverse=True)
    return [_offer(v, locked.get(v, "none"), stored, v == newest) for v in ordered]


_RANK = ("active", "previous", "kept", "failed")


def _offer(version: str, lock: Lock, stored: Sequence[StoredRelease], newest: bool) -> Offer:
    built = [release for release in stored if release.version == version]
    if built:
        best = min(built, key=lambda release: _RANK.index(release.state))
        verdict = best.verification or _KEPT
        return Offer(version, lock, verdict, best.name, best.state, newest)
    verdict = {"shipped": _SHIPPED, "kept": _KEPT, "none": _NO_LOCK}[lock]
    return Offer(version, lock, verdict, newest=newest)
