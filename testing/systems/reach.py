"""What pip and uv need on another system to reach the package index that they reach on this one.

Settings are copied as they are: variables, configuration files, certificates, and the directories
of wheels that those name. This module knows none of them by its value.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

#: Variables by which pip, uv and the libraries below them find an index, and trust it.
_VARIABLE = re.compile(
    r"PIP_\w+|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|(https?|all|no)_proxy"
    r"|UV_(\w*INDEX\w*|FIND_LINKS|SYSTEM_CERTS|NATIVE_TLS|INSECURE_HOST|KEYRING_PROVIDER)"
    r"|UV_(HTTP_TIMEOUT|EXCLUDE_NEWER)",
    re.IGNORECASE,
)
_MACHINE_FILES = ("etc/pip.conf", "etc/xdg/pip/pip.conf", "etc/uv/uv.toml", "etc/xdg/uv/uv.toml")
_USER_FILES = (".pip/pip.conf", ".config/pip/pip.conf", ".config/uv/uv.toml")
#: A path in a setting, with or without `file://` before it, that is no part of another address.
_PATH = re.compile(r"(?:file://|(?<![\w:/.]))(/[\w.+/-]+)")


def variables(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that other systems need, too."""
    return {name: value for name, value in environment.items() if _VARIABLE.fullmatch(name)}


def paths(text: str) -> Iterator[Path]:
    """The absolute paths that a setting names."""
    return (Path(path) for path in _PATH.findall(text))


def _files(root: Path, home: Path) -> dict[Path, Path]:
    """Configuration files of this machine and user, and their paths below a root with that home."""
    pairs = [(Path("/", name), root / name) for name in _MACHINE_FILES]
    pairs += [(Path.home() / name, root / home.relative_to("/") / name) for name in _USER_FILES]
    return {here: there for here, there in pairs if here.is_file()}


def prepare(root: Path, homes: Mapping[Path, int]) -> list[str]:
    """Copy settings and certificates below the root of a machine that is not booted yet.

    `homes`: the users' directories there, with their user ids. Returns the options of
    systemd-nspawn that show it the directories of wheels.
    """
    settings = [*variables().values()]
    for home, uid in homes.items():
        for here, there in _files(root, home).items():
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(here, there)
            settings.append(here.read_text())
        for path in (root / home.relative_to("/")).rglob("*"):
            os.chown(path, uid, uid, follow_symlinks=False)
    shown = set()
    for path in {path for text in settings for path in paths(text)}:
        if path.is_file():
            there = root / path.relative_to("/")
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, there)
        elif path.is_dir() and not (root / path.relative_to("/")).exists():
            # an index in files links to what lies beside it
            shown.add(Path(*path.parts[:3]))
    return [f"--bind-ro={path}" for path in sorted(shown)]
