"""The machine around the service: room on its disks, its clock, its journal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

from optictl.checks.engine import Finding, Skip, check
from optictl.facts.deployment import Deployment
from optictl.host import files

#: With less than this many MiB a file cannot be counted on to be written whole, and a log not to stop.
_ROOM = 16
_FILES = 64
#: Seconds that two clocks may be apart. The answer takes some of them, and Date has whole ones only.
_APART = 60
#: The journal's directories: the one that lasts, the one that does not.
_JOURNALS = (Path("/var/log/journal"), Path("/run/log/journal"))


def _room(path: Path) -> str:
    """Why a file system has no room for what is written to this place, or ""."""
    space = files.free_space(path)
    if space is None or (space.bytes >= _ROOM << 20 and space.inodes >= _FILES):
        return ""
    return f"{space.bytes >> 20} MiB and {space.inodes} files are free on the file system of {path}"


@check(
    "host.disk",
    "There is room to write",
    f"at least {_ROOM} MiB where the deployment lies",
    fault="A disk is full",
)
def host_disk(deployment: Deployment) -> Iterator[Finding]:
    """Every file system that holds a part of the deployment has room.

    How: statvfs of the directories of the configuration, the releases, the HOME of the service and the units.
    Why: the service runs on, and the next key, installation or rollback cannot be written.
    """
    places = (
        deployment.paths.etc,
        deployment.paths.opt,
        deployment.paths.home,
        deployment.paths.units,
    )
    seen = [path for path in places if files.file_facts(path).kind != "missing"]
    if not seen:
        raise Skip(f"nothing is installed: run {deployment.install}")
    for path in seen:
        if problem := _room(path):
            yield Finding(
                problem,
                "fail",
                f"free space there: du -xh {path} | sort -h | tail shows where it went",
            )
    yield Finding(f"room in {', '.join(map(str, seen))}")


@check(
    "host.clock",
    "The clock is right",
    f"within {_APART} s of LiteLLM's, and after the release was built",
    fault="The clock of this machine is wrong",
    requires=("upstream.base-model",),
)
def host_clock(deployment: Deployment) -> Iterator[Finding]:
    """This machine's clock agrees with that of whoever answers as LiteLLM, and has not gone back.

    How: the Date of LiteLLM's answer that upstream.base-model has asked for, and when the release in force was built.
    Why: keys and certificates expire by the clock, and a log in the wrong order explains nothing. LiteLLM may be on another
    machine behind a tunnel.
    """
    now = time.time()
    mend = "set the clock of the machine that is wrong: timedatectl set-ntp true"
    built = (
        files.modified_at(deployment.release / "release.json")
        if deployment.hand_made is None
        else 0
    )
    if built > now + _APART:
        yield Finding(f"the release in force was built {built - now:.0f} s from now", "fail", mend)
    try:
        theirs = parsedate_to_datetime(deployment.upstream_models.headers["date"]).timestamp()
    except (KeyError, ValueError):
        raise Skip("LiteLLM's answer has no Date") from None
    if abs(theirs - now) > _APART:
        way = "behind" if theirs > now else "ahead of"
        yield Finding(
            f"this machine's clock is {abs(theirs - now):.0f} s {way} LiteLLM's", "fail", mend
        )
    yield Finding("as LiteLLM's")


@check(
    "host.journal",
    "The journal takes what the service says",
    f"at least {_ROOM} MiB for it",
    fault="The journal is full",
    live=True,
)
def host_journal(deployment: Deployment) -> Iterator[Finding]:
    """There is room for the service's log.

    How: statvfs of the journal's directory.
    Why: journald drops what it cannot write: who asked for what, and why it failed, is lost.
    """
    if not deployment.units:
        raise Skip("systemd has no say in this deployment")
    path = next(
        (p for p in _JOURNALS if files.file_facts(p).kind == "directory" and any(p.iterdir())), None
    )
    if path is None:
        raise Skip("journald keeps no file")
    for machine in sorted(path.iterdir()):
        if problem := _room(machine):
            yield Finding(problem, "fail", f"journalctl --rotate --vacuum-size={2 * _ROOM}M")
    yield Finding(f"room in {path}")
