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
from optictl.errors import InvalidFile, NoLock
from optictl.host import files

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


def locked_versions(paths: Paths | None, profile: str) -> list[str]:
    """The OptiLLM versions with a lock file, shipped or in this deployment, oldest first."""
    places = [shipped_locks(), *([paths.locks] if paths else [])]
    names = {p.name for place in places for p in place.glob(lock_name("*", profile))}
    versions = {name.removeprefix("optillm-").removesuffix(f"-{profile}.txt") for name in names}
    return sorted(
        versions, key=lambda v: [int(part) if part.isdigit() else 0 for part in v.split(".")]
    )


def shipped_locks() -> Path:
    return render.template_directory() / "locks"


def lock_file(version: str, profile: str, paths: Paths) -> Path:
    """The lock file of an OptiLLM version: the one of this deployment, or else the shipped one.

    Raises:
        OptictlError: there is no lock file for this version.
    """
    name = lock_name(version, profile)
    path = next(
        (place / name for place in (paths.locks, shipped_locks()) if (place / name).is_file()), None
    )
    if path is None:
        have = locked_versions(paths, profile)
        raise NoLock(
            f"optictl has no lock file for OptiLLM {version} (profile {profile}), "
            f"only for {', '.join(have)}",
            remedy=f"set optillm.version to {have[-1]} in optictl.yaml, or create a lock file: "
            f"{paths.command(f'upgrade {version} --resolve')}",
        )
    return path


def required_release(config: Config, paths: Paths) -> ReleaseSpec:
    """The release that `config` requires. Plugin paths are relative to the configuration file."""
    lock = lock_file(config.optillm.version, config.optillm.profile, paths)
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
