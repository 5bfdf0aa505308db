"""Faults during a roll-out: the report is true, every host with power serves, a rerun converges.

Each test rolls to the version that is not active; both releases are on every host since the tests
before.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from optictl.proof.standin import Reply
from testing.hosts import PORT, Fleet, Host
from testing.load import ask
from testing.support import PROXY_KEY
from tests.system.fleet.test_2_roll import NEW, OLD, loaded, releases

pytestmark = [pytest.mark.slow, pytest.mark.root]

#: Longest wait for a moment of a roll-out, in seconds.
PATIENCE = 240
Found = dict[str, dict[str, Any]]


def states(found: Found) -> list[str]:
    """What became of gate1, gate2 and gate3."""
    return [found[name]["data"]["state"] for name in sorted(found)]


def results(out: str) -> Found:
    return {one["id"]: one for one in json.loads(out)["results"]}


def serves(host: Host) -> bool:
    """Whether a real request is answered on the host."""
    body = json.dumps(
        {"model": "bon-jerry-xl", "messages": [{"role": "user", "content": "hello"}]}
    ).encode()
    with host.inside():
        return ask(PORT, "POST", "/v1/chat/completions", body, PROXY_KEY).result == "ok"


def assert_converges(fleet: Fleet, version: str) -> None:
    """The same again, with nothing in its way: done everywhere."""
    assert states(fleet.optictl("upgrade", version, "--yes", "--batch", "3")) == ["done"] * 3
    assert releases(fleet) == [version] * 3
    assert all(serves(host) for host in fleet.hosts)


@pytest.fixture
def versions(fleet: Fleet) -> Iterator[tuple[str, str]]:
    """The active version everywhere, and the other one; what a test broke is whole afterwards."""
    if len(set(releases(fleet))) > 1:  # a test before has failed
        assert_converges(fleet, OLD)
    (old,) = set(releases(fleet))
    yield old, NEW if old == OLD else OLD
    for host in fleet.hosts:
        host.upstream.respond = None
        host.cable("up")
    fleet.describe()


def test_unreachable(fleet: Fleet, versions: tuple[str, str]) -> None:
    """Nothing is started anywhere."""
    old, new = versions
    fleet.hosts[2].cable("down")
    with loaded(fleet.hosts):
        found = fleet.optictl("upgrade", new, "--yes", code=1)
    assert states(found) == ["untouched", "untouched", "unreachable"]
    assert "--limit" in found["gate3"]["remedy"]
    assert releases(fleet) == [old] * 3
    assert all(serves(host) for host in fleet.hosts)


def test_wrong_key(fleet: Fleet, versions: tuple[str, str]) -> None:
    old, new = versions
    fleet.describe(key="wrong_key")
    found = fleet.optictl("upgrade", new, "--yes", code=1)
    assert states(found) == ["unreachable"] * 3
    assert "Permission denied" in found["gate1"]["found"]
    assert releases(fleet) == [old] * 3


def test_a_full_disk(fleet: Fleet, versions: tuple[str, str]) -> None:
    old, new = versions
    canary, wheels = fleet.hosts[0].machine, "/opt/optictl/wheels"
    canary.run("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", wheels)
    try:
        with loaded(fleet.hosts):
            found = fleet.optictl("upgrade", new, "--yes", code=1)
    finally:
        canary.run("umount", wheels)
    assert states(found) == ["failed", "untouched", "untouched"]
    assert "No space left" in found["gate1"]["found"]
    assert releases(fleet) == [old] * 3
    assert all(serves(host) for host in fleet.hosts)


def test_an_upstream_that_is_down_stops_the_roll_out(
    fleet: Fleet, versions: tuple[str, str]
) -> None:
    old, new = versions
    with loaded([fleet.hosts[0], fleet.hosts[2]]):
        fleet.hosts[1].upstream.respond = lambda seen: (
            Reply(500, {"error": {"message": "gone"}}) if seen.body else None
        )
        found = fleet.optictl("upgrade", new, "--yes", "--batch", "1", code=4)
        assert states(found) == ["done", "went back", "untouched"]
        assert releases(fleet) == [new, old, old]
        fleet.hosts[1].upstream.respond = None
        assert all(serves(host) for host in fleet.hosts)
        assert_converges(fleet, new)


def wait_for_the_switch(host: Host, process: subprocess.Popen[str]) -> None:
    """Until the sibling of the service is there: from now to its end, two releases serve."""
    sibling = Path(f"/proc/{host.machine.pid}/root/run/systemd/system/optillm-proxy-next.service")
    deadline = time.monotonic() + PATIENCE
    while not sibling.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_interrupted_controller(fleet: Fleet, versions: tuple[str, str]) -> None:
    """By Ctrl-C, then by SIGKILL after another start; nothing is in the way of the third run."""
    old, new = versions
    with loaded(fleet.hosts):
        first = fleet.start("upgrade", new, "--yes", "--batch", "1")
        wait_for_the_switch(fleet.hosts[0], first)
        first.send_signal(signal.SIGINT)
        out, err = first.communicate(timeout=PATIENCE)
        assert releases(fleet)[1:] == [old] * 2
        second = fleet.start("upgrade", new, "--yes", "--batch", "1")
        wait_for_the_switch(fleet.hosts[1], second)
        second.kill()
        second.communicate(timeout=PATIENCE)
        assert releases(fleet) == [new, releases(fleet)[1], old]
        assert_converges(fleet, new)
    assert first.returncode == 130, out + err
    assert states(results(out)) == ["interrupted", "untouched", "untouched"]


def test_a_power_cut_during_the_switch(fleet: Fleet, versions: tuple[str, str]) -> None:
    old, new = versions
    with loaded(fleet.hosts[1:]):
        process = fleet.start("upgrade", new, "--yes", "--batch", "1")
        wait_for_the_switch(fleet.hosts[0], process)
        fleet.hosts[0].cut()
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1, out + err
        assert states(results(out)) == ["unreachable", "untouched", "untouched"]
        fleet.hosts[0].boot()
        assert releases(fleet)[1:] == [old] * 2
        assert all(serves(host) for host in fleet.hosts)
        assert_converges(fleet, new)
