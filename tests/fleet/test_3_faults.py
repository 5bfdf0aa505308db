"""What goes wrong during a roll-out: the report is true, every host that has power serves, and a second run converges."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator

import pytest

from optictl.demo.standin import Reply
from tests.fleet.hosts import PORT, Fleet, Host
from tests.fleet.test_2_roll import NEW, OLD, releases
from tests.support import PROXY_KEY
from tests.systemd.load import ask

pytestmark = [pytest.mark.slow, pytest.mark.root]


def states(found: dict[str, dict[str, object]]) -> dict[str, str]:
    return {name: str(one["data"]["state"]) for name, one in found.items()}  # type: ignore[index]


def serves(host: Host) -> bool:
    """Whether a real request is answered on the host."""
    body = json.dumps({"model": "bon-jerry-xl", "messages": [{"role": "user", "content": "hello"}]}).encode()
    with host.inside():
        return ask(PORT, "POST", "/v1/chat/completions", body, PROXY_KEY).result == "ok"


def assert_converges(fleet: Fleet, version: str) -> None:
    """The same again, with nothing in its way: done everywhere."""
    assert set(states(fleet.optictl("upgrade", version, "--yes")).values()) == {"done"}
    assert releases(fleet) == [version] * 3
    assert all(serves(host) for host in fleet.hosts)


@pytest.fixture(autouse=True)
def deployed(fleet: Fleet) -> Iterator[None]:
    """The old release everywhere, before and after."""
    if releases(fleet) != [OLD] * 3:
        assert_converges(fleet, OLD)
    yield
    for host in fleet.hosts:
        host.upstream.respond = None
        host.cable("up")
    fleet.describe()


def test_unreachable(fleet: Fleet) -> None:
    fleet.hosts[2].cable("down")
    found = fleet.optictl("upgrade", NEW, "--yes", code=1)
    assert states(found)["gate3"] == "unreachable"
    assert releases(fleet) == [OLD] * 3
    fleet.hosts[2].cable("up")
    assert all(serves(host) for host in fleet.hosts)


def test_wrong_key(fleet: Fleet) -> None:
    fleet.describe(key="wrong_key")
    assert set(states(fleet.optictl("upgrade", NEW, "--yes", code=1)).values()) == {"unreachable"}
    assert releases(fleet) == [OLD] * 3


def test_a_full_disk(fleet: Fleet) -> None:
    canary, wheels = fleet.hosts[0].machine, "/opt/optictl/wheels"
    canary.run("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", wheels)
    try:
        found = fleet.optictl("upgrade", NEW, "--yes", code=1)
    finally:
        canary.run("umount", wheels)
    assert states(found) == {"gate1": "failed", "gate2": "untouched", "gate3": "untouched"}
    assert "No space left" in str(found["gate1"]["found"])
    assert releases(fleet) == [OLD] * 3
    assert all(serves(host) for host in fleet.hosts)


def test_an_upstream_that_is_down_stops_the_roll_out(fleet: Fleet) -> None:
    fleet.hosts[1].upstream.respond = lambda seen: Reply(500, {"error": {"message": "gone"}}) if seen.body else None
    found = fleet.optictl("upgrade", NEW, "--yes", "--batch", "1", code=4)
    assert states(found) == {"gate1": "done", "gate2": "went back", "gate3": "untouched"}
    assert releases(fleet) == [NEW, OLD, OLD]
    fleet.hosts[1].upstream.respond = None
    assert all(serves(host) for host in fleet.hosts)
    assert_converges(fleet, NEW)


def test_a_power_cut_in_the_middle(fleet: Fleet) -> None:
    canary = fleet.hosts[0]
    asked = len(canary.upstream.calls())
    process = fleet.start("upgrade", NEW, "--yes", "--batch", "1")
    deadline = time.monotonic() + 240
    while len(canary.upstream.calls()) == asked:  # the proof of the release to come: the switch is near
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    canary.cut()
    out, err = process.communicate(timeout=240)
    assert process.returncode == 1, out + err
    assert '"unreachable"' in out
    canary.boot()
    assert all(serves(host) for host in fleet.hosts)
    assert_converges(fleet, NEW)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["SIGINT", "SIGKILL"])
def test_an_interrupted_controller(fleet: Fleet, number: signal.Signals) -> None:
    canary = fleet.hosts[0]
    asked = len(canary.upstream.calls())
    process = fleet.start("upgrade", NEW, "--yes", "--batch", "1")
    deadline = time.monotonic() + 240
    while len(canary.upstream.calls()) == asked:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, number) if number == signal.SIGKILL else process.send_signal(number)
    process.communicate(timeout=120)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert all(serves(host) for host in fleet.hosts)
    assert_converges(fleet, NEW)
