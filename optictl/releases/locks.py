"""Lock files: the pinned packages of a release, and the release id that follows from them.

optictl ships lock files; a deployment may have more of them next to its configuration.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from optictl.deployment import render
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.deployment.version_order import version_order
from optictl.errors import InvalidFile, NoLock
from optictl.host import files
from optictl.releases import failures, release_record, verification

#: The guard of this optictl; every release that it builds contains a copy.
GUARD = Path(__file__).resolve().parent.parent / "guard"


@dataclass(frozen=True)
class ReleaseSpec:
    """The release that a configuration requires.

    `id`: the version and a hash of all inputs. `name`: the name of the directory, which is the id,
    followed by a number if a broken release has that id.
    """

    id: str
    version: str
    profile: str
    lock: Path
    plugins: tuple[Path, ...]
    name: str

    def directory(self, paths: Paths) -> Path:
        return paths.releases / self.name


def lock_name(version: str, profile: str) -> str:
    """The name of the lock file of an OptiLLM version."""
    return f"optillm-{version}-{profile}.txt"


def _versions(place: Path, profile: str) -> list[str]:
    names = (path.name for path in place.glob(lock_name("*", profile)))
    versions = (name.removeprefix("optillm-").removesuffix(f"-{profile}.txt") for name in names)
    return sorted(versions, key=version_order)


def shipped_versions(profile: str) -> list[str]:
    """The OptiLLM versions whose lock optictl ships, the oldest first."""
    return _versions(shipped_locks(), profile)


def kept_versions(paths: Paths, profile: str) -> list[str]:
    """The OptiLLM versions with a lock of this deployment, the oldest first."""
    return _versions(paths.locks, profile)


def shipped_locks() -> Path:
    return render.template_directory() / "locks"


def _find(version: str, profile: str, paths: Paths) -> Path | None:
    name = lock_name(version, profile)
    places = (paths.locks, shipped_locks())
    return next((place / name for place in places if (place / name).is_file()), None)


def has_lock(version: str, profile: str, paths: Paths) -> bool:
    """Whether there is a lock file for an OptiLLM version."""
    return _find(version, profile, paths) is not None


def working_versions(paths: Paths, profile: str) -> list[str]:
    """The versions with a lock that works, the oldest first.

    It works if a release of it does here; or if optictl ships it, and no release of it failed here.
    """
    shipped, kept = shipped_versions(profile), kept_versions(paths, profile)
    outcomes = _outcomes(paths)
    works = []
    for version in sorted({*shipped, *kept}, key=version_order):
        lock = _find(version, profile, paths)
        known = outcomes.get(files.sha256(lock), []) if lock is not None else []
        if any(known) or (not known and version not in kept):
            works.append(version)
    return works


def _outcomes(paths: Paths) -> dict[str, list[bool]]:
    """digest of a lock -> for each release that was built from it, whether that release works."""
    outcomes: dict[str, list[bool]] = {}
    strategies = verification.enabled(paths)
    for directory in sorted(paths.releases.iterdir()) if paths.releases.is_dir() else []:
        if (record := release_record.read(directory)) is not None:
            refused = verification.of(directory, record, strategies).state == "refused"
            works = failures.of(directory) is None and not refused
            outcomes.setdefault(record.lock_sha256, []).append(works)
    return outcomes


def recommended(paths: Paths, profile: str) -> str:
    """The newest version that works, or ""."""
    return next(reversed(working_versions(paths, profile)), "")


def lock_file(version: str, profile: str, paths: Paths) -> Path:
    """The lock file of an OptiLLM version: the one of this deployment, or else the shipped one.

    Raises:
        OptictlError: there is no lock file for this version.
    """
    if (path := _find(version, profile, paths)) is not None:
        return path
    have = sorted({*shipped_versions(profile), *kept_versions(paths, profile)}, key=version_order)
    working = recommended(paths, profile)
    works = f"{paths.command(f'upgrade {working}')}, a version that works; or " if working else ""
    again = paths.command(f"upgrade {version} --resolve --dry-run")
    raise NoLock(
        f"optictl has no lock file for OptiLLM {version} (profile {profile}), "
        f"only for {', '.join(have)}",
        remedy=f"{works}see what a new lock would change: {again}",
    )


def required_release(config: Config, paths: Paths, lock: Path | None = None) -> ReleaseSpec:
    """The release that `config` requires. Plugin paths are relative to the configuration file.

    `lock`: the lock to build it from, which is not kept yet.
    """
    lock = lock or lock_file(config.optillm.version, config.optillm.profile, paths)
    plugins = tuple((paths.etc / name).resolve() for name in config.plugins)
    for path in plugins:
        if path.suffix != ".py" or not path.is_file():
            raise InvalidFile(
                f"the plugin {path} is not a Python file", remedy="correct plugins: in optictl.yaml"
            )
    if len({path.name for path in plugins}) < len(plugins):
        raise InvalidFile("two plugins have the same file name", remedy="rename one of them")
    digest = hashlib.sha256()
    sources = [p for p in files.tree(GUARD) if p.suffix == ".py"]
    for path in [lock, *sources, *plugins]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    id = f"{config.optillm.version}-{digest.hexdigest()[:12]}"
    return ReleaseSpec(id, config.optillm.version, config.optillm.profile, lock, plugins, name=id)
