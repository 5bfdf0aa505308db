"""Checks of the machine: disk space, clock, journal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

from optictl.checks.engine import Finding, Skip, check
from optictl.errors import NotApplicable
from optictl.facts.deployment import Deployment
from optictl.host import files
from optictl.releases import release_record

#: With less free MiB or inodes, a file may be cut off while it is written, and a log may stop.
_MIN_FREE_MIB = 16
_MIN_FREE_INODES = 64
#: Tolerated clock difference in seconds: the answer takes time, and `Date` has whole seconds only.
_MAX_SKEW = 60
#: The journal's directories: persistent, volatile.
_JOURNALS = (Path("/var/log/journal"), Path("/run/log/journal"))


def _space_problem(path: Path) -> str:
    """Why the file system of this path is too full, or ""."""
    space = files.free_space(path)
    if space is None or (space.bytes >= _MIN_FREE_MIB << 20 and space.inodes >= _MIN_FREE_INODES):
        return ""
    room = f"{space.bytes >> 20} MiB and {space.inodes} inodes"
    return f"only {room} are free on the file system of {path}"


@check(
    "host.disk",
    "The disks have free space",
    f"at least {_MIN_FREE_MIB} MiB free on every file system of the deployment",
    fault="A disk is full",
)
def host_disk(deployment: Deployment) -> Iterator[Finding]:
    """Every file system that holds a part of the deployment has free space.

    How: calls statvfs for the directories of the configuration, the releases, the service's HOME
    and the units.
    Why: on a full disk the service keeps running, but the next key, installation or rollback fails.
    """
    directories = (
        deployment.paths.etc,
        deployment.paths.opt,
        deployment.paths.home,
        deployment.paths.units,
    )
    existing = [path for path in directories if files.file_facts(path).kind != "missing"]
    if not existing:
        raise Skip(f"nothing is installed: run {deployment.install}")
    for path in existing:
        if problem := _space_problem(path):
            yield Finding(
                problem,
                "fail",
                f"free space there: du -xh {path} | sort -h | tail lists the largest directories",
            )
    yield Finding(f"free space in {', '.join(map(str, existing))}")


@check(
    "host.clock",
    "The clock is right",
    f"within {_MAX_SKEW} s of LiteLLM's clock, and later than the build of the release",
    fault="The clock of this machine is wrong",
    requires=("upstream.base-model",),
)
def host_clock(deployment: Deployment) -> Iterator[Finding]:
    """This machine's clock agrees with LiteLLM's and was not set back.

    How: compares the clock with the `Date` header of LiteLLM's answer and with the build time of
    the active release.
    Why: keys and certificates expire by the clock, and a log in the wrong order is of no use.
    LiteLLM may run on another machine behind a tunnel.
    """
    now = time.time()
    remedy = "set the clock of the machine that is wrong: timedatectl set-ntp true"
    built = (
        files.modified_at(deployment.release / release_record.FILE)
        if deployment.hand_made is None
        else 0
    )
    if built > now + _MAX_SKEW:
        yield Finding(
            f"the build time of the active release is {built - now:.0f} s in the future",
            "fail",
            remedy,
        )
    try:
        theirs = parsedate_to_datetime(deployment.upstream_models.headers["date"]).timestamp()
    except (KeyError, ValueError):
        raise Skip("LiteLLM's answer has no Date header") from None
    if abs(theirs - now) > _MAX_SKEW:
        way = "behind" if theirs > now else "ahead of"
        yield Finding(
            f"this machine's clock is {abs(theirs - now):.0f} s {way} LiteLLM's", "fail", remedy
        )
    yield Finding("agrees with LiteLLM's clock")


@check(
    "host.journal",
    "The journal has free space",
    f"at least {_MIN_FREE_MIB} MiB free for the journal",
    fault="The journal is full",
    live=True,
)
def host_journal(deployment: Deployment) -> Iterator[Finding]:
    """There is free space for the service's log.

    How: calls statvfs for the journal's directory.
    Why: journald drops what it cannot write; requests and the reasons of failures are lost.
    """
    if not deployment.units:
        raise NotApplicable("this deployment is not managed by systemd")
    path = next(
        (p for p in _JOURNALS if files.file_facts(p).kind == "directory" and any(p.iterdir())), None
    )
    if path is None:
        raise NotApplicable("journald keeps no files")
    for machine in sorted(path.iterdir()):
        if problem := _space_problem(machine):
            yield Finding(
                problem, "fail", f"journalctl --rotate --vacuum-size={2 * _MIN_FREE_MIB}M"
            )
    yield Finding(f"free space in {path}")
