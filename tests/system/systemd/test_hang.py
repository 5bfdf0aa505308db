"""A hanging service is killed and restarted, with stacks in the journal and no client refused."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from testing.host import ETC, HANG, Host
from testing.load import Request, ask
from testing.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.root]

UNIT = "optillm-proxy.service"
DROP_IN = f"/run/systemd/system/{UNIT}.d"
#: TimeoutAbortSec and RestartSec of the unit, and what a busy machine may add; seconds.
ABORT, PAUSE, SLACK = 5, 1, 3


@pytest.fixture(scope="module", autouse=True)
def installed(host: Host) -> None:
    """A running deployment, whatever the module before left."""
    host.renew()


def _start_seconds(host: Host) -> float:
    """How long a stop and a start of the idle service take on this machine, now."""
    since = time.monotonic()
    host.machine.run("systemctl", "restart", UNIT)
    return time.monotonic() - since


def _watchdog(host: Host) -> float:
    """The interval that systemd itself goes by, in seconds."""
    text = host.machine.show(UNIT, "WatchdogUSec")
    assert re.fullmatch(r"\d+s", text), text
    return float(text.removesuffix("s"))


@contextmanager
def _recovery(
    host: Host, name: str, record_property: Callable[[str, object], None], lost: int = 0
) -> Iterator[None]:
    """The block hangs the service. It is back in time, stacks in the journal, no client refused.

    `lost`: how many newcomers the dying process may take along.
    """
    start, watchdog, pid, restarts = (
        _start_seconds(host),
        _watchdog(host),
        host.machine.show(UNIT, "MainPID"),
        _restarts(host),
    )
    began, clock = time.monotonic(), f"@{int(time.time())}"
    yield
    waiting: list[Future[Request]] = []
    with ThreadPoolExecutor(100) as pool:
        # newcomers, one every half second for as long as it hangs
        while len(waiting) < 100 and not (waiting and waiting[0].done()):
            waiting.append(pool.submit(ask, host.port, "GET", "/health"))
            time.sleep(0.5)
        answered = [one.result() for one in waiting]
    # an answer is not enough: a process that is continued in order to be aborted may still give one
    while _restarts(host) == restarts or host.machine.show(UNIT, "ActiveState") != "active":
        assert time.monotonic() - began < 120
        time.sleep(0.1)
    seconds = time.monotonic() - began
    results = [request.result for request in answered]
    record_property(
        "said",
        f"{name}: WatchdogSec={watchdog:.0f}, serving again after {seconds:.1f} s "
        f"(a restart alone takes {start:.1f} s); "
        f"of {len(answered)} newcomers {results.count('refused')} refused, "
        f"{results.count('dropped')} dropped",
    )
    assert set(results) <= {"ok", "dropped"}
    assert results.count("dropped") <= lost
    assert host.machine.show(UNIT, "MainPID") != pid
    assert _restarts(host) == restarts + 1
    # well over the time that any answer of a healthy service takes: it did hang
    assert 1 < seconds < watchdog + ABORT + PAUSE + start + SLACK
    said = host.machine.run("journalctl", "--no-pager", "-u", UNIT, "--since", clock).stdout
    assert "Watchdog timeout" in said
    assert re.search(r"(Thread|thread) 0x[0-9a-f]+ .*most recent call first", said)


def _restarts(host: Host) -> int:
    return int(host.machine.show(UNIT, "NRestarts"))


@pytest.mark.quiet
def test_a_stopped_process_is_replaced(
    host: Host, record_property: Callable[[str, object], None]
) -> None:
    """As shipped: WatchdogSec=15."""
    # to be aborted it is continued: until its stacks are printed it may accept a few who wait
    with _recovery(host, "SIGSTOP", record_property, lost=5):
        assert _watchdog(host) == 15
        host.machine.run("systemctl", "kill", "--signal=STOP", UNIT)


@pytest.mark.quiet
def test_a_deadlocked_interpreter_is_replaced(
    host: Host, record_property: Callable[[str, object], None]
) -> None:
    """One request makes a plugin hold the interpreter for good."""
    host.machine.write(f"{ETC}/hang.py", HANG)
    host.configure("plugins: [hang.py]\nstrategies: [bon, hang]\n")
    try:
        host.optictl("install", "--yes")
        host.machine.run("mkdir", "-p", DROP_IN)
        # shorter than shipped, to keep the test short: the other test has the real one
        host.machine.write(f"{DROP_IN}/watchdog.conf", "[Service]\nWatchdogSec=5\n")
        host.machine.run("systemctl", "daemon-reload")
        with ThreadPoolExecutor(1) as pool, _recovery(host, "deadlock", record_property):
            assert _watchdog(host) == 5
            lost = pool.submit(host.ask, "hang-jerry-xl")
            time.sleep(0.5)
        # the request that hung it is gone with the process; the client learns it by the connection
        assert lost.exception(10) is not None
        host.machine.run("systemctl", "is-active", UNIT)
        assert host.ask().status_code == 200
    finally:
        host.machine.run("rm", "-rf", DROP_IN, f"{ETC}/hang.py")
        host.machine.run("systemctl", "daemon-reload")


def _workers(host: Host) -> set[str]:
    return set(
        host.machine.run(
            "pgrep", "-P", host.machine.show(UNIT, "MainPID"), check=False
        ).stdout.split()
    )


def test_one_of_two_workers_is_replaced_and_the_service_goes_on(host: Host) -> None:
    host.configure("workers: 2\n")
    host.optictl("install", "--yes")
    try:
        host.machine.run("mkdir", "-p", DROP_IN)
        host.machine.write(f"{DROP_IN}/watchdog.conf", "[Service]\nWatchdogSec=3\n")
        host.machine.run("systemctl", "daemon-reload")
        host.machine.run("systemctl", "restart", UNIT)
        # "active" means READY: both have answered
        assert host.machine.show(UNIT, "StatusText") == "serving with 2 of 2 workers, 0 in flight"
        before, workers = host.machine.show(UNIT, "MainPID"), _workers(host)
        assert len(workers) == 2
        hung = min(workers)
        host.machine.run("kill", "-STOP", hung)
        wait_until(lambda: hung not in _workers(host), 30, "its end")
        wait_until(lambda: "2 of 2" in host.machine.show(UNIT, "StatusText"), 30, "the new one")
        assert len(_workers(host) & workers) == 1
        assert (host.machine.show(UNIT, "MainPID"), _restarts(host)) == (before, 0)
        assert {host.ask().status_code for _ in range(6)} == {200}
    finally:
        host.machine.run("rm", "-rf", DROP_IN)
        host.machine.run("systemctl", "daemon-reload")
    # nothing that check looks at is odd because they are two; the watchdog is the shipped one again
    host.machine.run("systemctl", "restart", UNIT)
    host.optictl("check")
