"""Build the package for Debian and Ubuntu: `python -m scripts.deb`.

    uv run python -m scripts.deb [--architecture arm64] [--python 3.13]... [DIRECTORY]

The package has the wheels of optictl and of what it needs, for each Python. They are pinned by
templates/locks/optictl.txt. Its postinst makes an environment of them below /opt/optictl. It needs
`dpkg-deb`, and an index once; wheels are kept in the cache.
"""

from __future__ import annotations

import argparse
import email.utils
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from uv import find_uv_bin

from optictl import __version__
from optictl.host import uv, wheels
from optictl.host.uv_settings import parse_toml
from optictl.releases import sbom, wheelhouse
from optictl.releases.targets import Pin, pins, target
from scripts import completions

ROOT = Path(__file__).resolve().parent.parent
PARTS = ROOT / "packaging/debian"
LOCK = ROOT / "templates/locks/optictl.txt"
#: Debian's name of an architecture -> the name in wheels.
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
#: The oldest C library of the supported systems: Debian 11 and Ubuntu 20.04 have 2.31.
GLIBC = (2, 31)
#: The earliest time in a wheel, for a checkout without git.
_FIRST = 315532800
PYTHONS = [f"3.{minor}" for minor in range(uv.OLDEST[1], uv.NEWEST[1] + 1)]


def build(directory: Path, architecture: str, pythons: Sequence[str]) -> Path:
    """Build the package in a directory. Returns its path."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        root = Path(scratch, "root")
        _programs(root, ARCHITECTURES[architecture], pythons)
        _documents(root)
        _control(root, architecture)
        _one_time(root)
        package = directory.absolute() / f"optictl_{__version__}_{architecture}.deb"
        directory.mkdir(parents=True, exist_ok=True)
        # wheels are compressed already
        command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build"]
        command += [str(root), str(package)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=_environment())
    return package


def _environment() -> dict[str, str]:
    return {**os.environ, "SOURCE_DATE_EPOCH": str(_epoch())}


def _epoch() -> int:
    """The time of the commit, in seconds: two builds of one commit are the same."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return _FIRST
    return int(asked.stdout)


def _programs(root: Path, architecture: str, pythons: Sequence[str]) -> None:
    """/opt/optictl with the wheels and a lock for each Python, and the link to the program."""
    place = root / "opt/optictl"
    place.mkdir(parents=True)
    shutil.copy(PARTS / "make_venv.py", place)
    (place / "wheels").mkdir()
    (place / "locks").mkdir()
    command = [find_uv_bin(), "build", "-q", "--wheel", f"--out-dir={place / 'wheels'}", str(ROOT)]
    subprocess.run(command, check=True, env=_environment())
    (place / "wheels/.gitignore").unlink(missing_ok=True)
    (own,) = wheels.digests(place / "wheels")
    for python in pythons:
        _wheels_for(python, architecture, place, own)
    program = root / "usr/bin/optictl"
    program.parent.mkdir(parents=True)
    program.symlink_to("/opt/optictl/venv/bin/optictl")


def _wheels_for(python: str, architecture: str, place: Path, own: str) -> None:
    """The wheels and the lock for one Python. `own`: the digest of the wheel of optictl."""
    kind = target(architecture, [int(part) for part in python.split(".")], GLIBC)
    needed = pins(LOCK.read_text(), kind)
    cache = wheels.cache() / kind.name
    for wheel in wheelhouse.complete(cache, kind, needed, None, say):
        shutil.copy(wheel, place / "wheels")
    everything = [*needed, Pin("optictl", __version__, frozenset({own}))]
    lock = place / "locks" / f"{python}.txt"
    lock.write_text("".join(f"{pin.line}\n" for pin in everything))


def say(text: str) -> None:
    print(text, file=sys.stderr)


def _documents(root: Path) -> None:
    """Man pages, completion for three shells, and what Debian wants to know of a package."""
    share = root / "usr/share"
    for page in (ROOT / "man").iterdir():
        _compressed(share / f"man/man{page.suffix[1:]}/{page.name}.gz", page.read_bytes())
    for shell, path in completions.PLACES.items():
        _written(share / path, completions.script(shell))
    documents = share / "doc/optictl"
    _compressed(documents / "CHANGELOG.md.gz", (ROOT / "CHANGELOG.md").read_bytes())
    _compressed(documents / "changelog.gz", _filled("changelog.in").encode())
    _written(documents / "copyright", _filled("copyright.in"))
    bill = sbom.document("optictl", __version__, LOCK.read_text())
    _written(documents / "optictl.cdx.json", json.dumps(bill, indent=2) + "\n")


def _filled(name: str, **more: object) -> str:
    """A file of packaging/debian with the values of this build."""
    project = parse_toml((ROOT / "pyproject.toml").read_text())["project"]
    values = {
        "VERSION": __version__,
        "HOMEPAGE": project["urls"]["Source"],
        "DATE": email.utils.formatdate(_epoch()),
        "OLDEST": f"{uv.OLDEST[0]}.{uv.OLDEST[1]}",
        "NEXT": f"{uv.NEWEST[0]}.{uv.NEWEST[1] + 1}",
        **more,
    }
    return re.sub(r"@(\w+)@", lambda key: str(values[key[1]]), (PARTS / name).read_text())


def _compressed(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0))


def _written(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _control(root: Path, architecture: str) -> None:
    """DEBIAN/: what dpkg reads and runs."""
    control = root / "DEBIAN"
    control.mkdir()
    names = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()]
    size = sum(path.stat().st_size for path in names) // 1024
    sums = [
        f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n"
        for path in names
        if control not in path.parents
    ]
    (control / "md5sums").write_text("".join(sums))
    control_text = _filled("control.in", ARCHITECTURE=architecture, SIZE=size)
    (control / "control").write_text(control_text)
    for name in ("postinst", "prerm", "triggers"):
        shutil.copy(PARTS / name, control)


def _one_time(root: Path) -> None:
    """Give every file one time and the modes of a package, whatever the umask is."""
    for path in (root, *root.rglob("*")):
        if not path.is_symlink():
            script = path.parent.name == "DEBIAN" and path.name in ("postinst", "prerm")
            path.chmod(0o755 if path.is_dir() or script else 0o644)
            os.utime(path, (_epoch(), _epoch()))


def main() -> None:
    """Parse the command line, and build."""
    parser = argparse.ArgumentParser(description="Build the package for Debian and Ubuntu.")
    parser.add_argument("directory", type=Path, nargs="?", default=ROOT / "dist")
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="amd64")
    parser.add_argument("--python", choices=PYTHONS, action="append")
    given = parser.parse_args()
    print(build(given.directory, given.architecture, given.python or PYTHONS))


if __name__ == "__main__":
    main()
