"""Root trees of other Debian releases, made by `debootstrap` from the mirror that apt uses here.

One takes about a minute, is kept between sessions and never changes: a machine boots on an overlay
of it. No address stands here: apt's own sources name the mirror and its keyring.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from testing.kept import KEPT, kept
from testing.machine import install_packages

#: What the walk needs besides Debian's required packages: systemd with logins, sudo, Python, pip.
PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "libpam-systemd",
    "python3",
    "python3-pip",
    "sudo",
    "systemd",
    "systemd-sysv",
)
#: Parts of an archive that hold no whole system.
_PARTIAL = ("-security", "-updates", "-backports", "-proposed")
_SCHEMES = ("http://", "https://", "file:/", "ftp://")


class NoTree(Exception):
    """There is no tree of a suite, and none can be made; says why."""


@dataclass(frozen=True)
class Source:
    """An archive with a whole Debian. `signed_by`: a keyring's path, a key, or "" (apt's keys)."""

    uri: str
    signed_by: str


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a deb822 file. Values keep their line breaks; "." is an empty line."""
    fields: dict[str, str] = {}
    last = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields = {}
        elif line[0] in " \t":
            fields[last] += "\n" + ("" if line.strip() == "." else line.strip())
        else:
            name, _, value = line.partition(":")
            last = name.strip().lower()
            fields[last] = value.strip()


def _one_line(text: str) -> Iterator[dict[str, str]]:
    """The entries of a one-line file, `deb [signed-by=FILE] URI SUITE COMPONENT...`, as stanzas."""
    for line in text.splitlines():
        words = line.partition("#")[0].replace("[", " [ ").replace("]", " ] ").split()
        if not words:
            continue
        options: dict[str, str] = {}
        if words[1:2] == ["["]:
            end = words.index("]")
            options = dict(pair.split("=", 1) for pair in words[2:end])
            words[1 : end + 1] = []
        if len(words) >= 3:
            yield {
                "types": words[0],
                "uris": words[1],
                "suites": words[2],
                "components": " ".join(words[3:]),
                "signed-by": options.get("signed-by", ""),
            }


def sources(texts: dict[str, str]) -> list[Source]:
    """The archives with a whole Debian in apt's sources (file name: text), in their order."""
    stanzas = [
        stanza
        for name, text in texts.items()
        for stanza in (_stanzas(text) if name.endswith(".sources") else _one_line(text))
    ]
    return [
        Source(uri, stanza.get("signed-by", "").strip("\n"))
        for stanza in stanzas
        if stanza.get("enabled", "yes").lower() not in ("no", "false", "0")
        and "deb" in stanza.get("types", "").split()
        and "main" in stanza.get("components", "").split()
        and not all(suite.endswith(_PARTIAL) for suite in stanza.get("suites", "").split())
        for uri in stanza.get("uris", "").split()
        if uri.startswith(_SCHEMES)
    ]


def _apt_sources() -> dict[str, str]:
    """The files that apt reads, in its order, with their texts."""
    apt = Path("/etc/apt")
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    return {
        str(file): file.read_text()
        for file in files
        if file.suffix in (".list", ".sources") and file.is_file()
    }


def _keyring(source: Source, scratch: Path) -> list[str]:
    if not source.signed_by:
        return []
    if source.signed_by.startswith("/"):
        return [f"--keyring={source.signed_by}"]
    # the key itself stands in the source
    armoured, keyring = scratch / "key.asc", scratch / "key.gpg"
    armoured.write_text(source.signed_by)
    subprocess.run(
        ["gpg", "--dearmor", "--output", keyring, armoured], check=True, capture_output=True
    )
    return [f"--keyring={keyring}"]


def _debootstrap(suite: str, root: Path) -> None:
    places = sources(_apt_sources())
    if not places:
        raise NoTree("apt's sources name no archive that holds a whole Debian")
    install_packages("debootstrap", "debootstrap")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        command = [
            "debootstrap",
            "--variant=minbase",
            f"--include={','.join(PACKAGES)}",
            *_keyring(places[0], Path(scratch)),
            suite,
            str(root),
            places[0].uri,
        ]
        made = subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    if made.returncode:
        said = [
            line.replace(places[0].uri, "MIRROR")
            for line in (made.stdout + made.stderr).splitlines()[-5:]
        ]
        raise NoTree(f"debootstrap made no {suite}: {'; '.join(said)}")
    for package in (root / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()


def _name(suite: str) -> str:
    what = shlex.join((suite, *PACKAGES))
    return f"tree-{suite}-{hashlib.sha256(what.encode()).hexdigest()[:12]}"


def tree(suite: str) -> Path:
    """The root of a kept tree of a Debian suite, made when there is none yet. Raises NoTree."""
    return kept(_name(suite), lambda directory: _debootstrap(suite, directory / "root")) / "root"


def forget(suite: str) -> None:
    """Make the next `tree` from the mirror. Not while a machine runs on the kept one."""
    shutil.rmtree(KEPT / _name(suite), ignore_errors=True)
