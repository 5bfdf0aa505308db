"""A deployment's life on three hosts, under load on each the whole time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest

from testing.hosts import Fleet, Host
from testing.load import Load, row

pytestmark = [pytest.mark.slow, pytest.mark.root]

OLD, NEW = "0.3.12", "0.3.13"
Record = Callable[[str, object], None]


def releases(fleet: Fleet) -> list[str]:
    """The active version on each host, as the host reports it; "" where there is none."""
    found = [
        host.machine.run("readlink", "/opt/optillm-proxy/current", check=False).stdout
        for host in fleet.hosts
    ]
    return [text.split("/")[-1].split("-")[0] for text in found]


def assert_nobody_noticed(loads: Sequence[Load]) -> None:
    for load in loads:
        for tally in (load.gets, load.strategies):
            assert tally.count("ok") == len(tally.requests) > 10


def test_the_first_roll_out(fleet: Fleet) -> None:
    found = fleet.optictl("apply", "--yes", "--batch", "1,2")
    assert sorted(found) == ["gate1", "gate2", "gate3"]
    assert [(one["status"], one["data"]["changed"]) for one in found.values()] == [
        ("pass", True)
    ] * 3
    assert releases(fleet) == [OLD] * 3
    for host in fleet.hosts:
        assert host.machine.show("optillm-proxy.service", "ActiveState") == "active"
        assert len(host.upstream.calls()) > 0


def test_there_and_back_nobody_notices(fleet: Fleet, record_property: Record) -> None:
    loads: list[Load] = []
    with ExitStack() as stack:
        loads += [stack.enter_context(host.load()) for host in fleet.hosts]
        again = fleet.optictl("apply", "--yes", "--batch", "3")
        assert [one["data"]["changed"] for one in again.values()] == [False] * 3
        fleet.optictl("upgrade", NEW, "--yes", "--batch", "1,2")
        assert releases(fleet) == [NEW] * 3
        fleet.optictl("rollback", "--yes", "--batch", "1,2")
        assert releases(fleet) == [OLD] * 3
    for host, load in zip(fleet.hosts, loads, strict=True):
        record_property(
            "load", row(f"{host.name}: roll-out without changes, upgrade, rollback", load)
        )
    assert_nobody_noticed(loads)


@contextmanager
def loaded(hosts: Sequence[Host]) -> Iterator[None]:
    """Load on hosts: none of their clients notices anything."""
    with ExitStack() as stack:
        loads = [stack.enter_context(host.load()) for host in hosts]
        yield
    assert_nobody_noticed(loads)


def _files(fleet: Fleet) -> list[str]:
    """Every file of a deployment on each host, with its size and time."""
    places = (
        "/etc/optillm-proxy",
        "/etc/systemd/system",
        "/opt",
        "/usr/local",
        "/var/lib/optillm-proxy",
    )
    words = ("find", *places, "-printf", "%p %s %T@ %m\\n")
    return [host.machine.run(*words).stdout for host in fleet.hosts]


def test_drift_is_shown_changed_by_no_plan_and_mended(fleet: Fleet) -> None:
    unit = "/etc/systemd/system/optillm-proxy.service"
    fleet.hosts[1].machine.run("sed", "-i", "s/^RestartSec=.*/RestartSec=7/", unit)
    before = _files(fleet)
    assert fleet.optictl("status", code=1)["gate2"]["data"]["drift"]
    planned = fleet.optictl("plan", "--force")
    assert [one["data"]["changed"] for one in planned.values()] == [False, True, False]
    assert _files(fleet) == before
    refused = fleet.optictl("apply", "--yes", "--batch", "3", code=1)["gate2"]
    assert (refused["data"]["state"], refused["data"]["phase"]) == ("failed", "build and test")
    assert f"{unit}: has local changes" in refused["found"]
    with loaded(fleet.hosts):
        mended = fleet.optictl("apply", "--yes", "--force", "--batch", "3")
    assert [one["data"]["changed"] for one in mended.values()] == [False, True, False]
    assert "RestartSec=7" not in fleet.hosts[1].machine.read(unit)
