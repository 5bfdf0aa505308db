"""What clients notice of restarts and kills under constant load, compared with a plain unit."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import httpx
import pytest

from optictl.proof.standin import Reply, completion
from testing.host import ETC, Host
from testing.load import CLIENTS, RATE, Load, row, slow_upstream
from testing.support import PROXY_KEY, UPSTREAM_KEY, free_port

pytestmark = [pytest.mark.slow, pytest.mark.root]

UNIT = "optillm-proxy.service"
PLAIN = "plain-optillm.service"
#: What OptiLLM's own documentation leads to: no socket, no readiness, no drain.
PLAIN_UNIT = """\
[Unit]
Description=A bare OptiLLM, to compare with
StartLimitIntervalSec=0

[Service]
ExecStart=/opt/optillm-proxy/current/.venv/bin/optillm --host 127.0.0.1 --port {port} \\
  --base-url {upstream} --model jerry-xl --optillm-api-key {key}
Environment=OPENAI_API_KEY={upstream_key} HOME=%S/plain-optillm
User=nobody
StateDirectory=plain-optillm
WorkingDirectory=%S/plain-optillm
Restart=always
"""
#: The promise for a short request while `optictl restart` runs; seconds. It holds for the middle
#: one of many restarts: the pauses of a busy machine are not the program's.
SHORT = 0.5
#: `benchmarks restarts` makes many more.
RESTARTS = 12


@pytest.fixture(scope="module", autouse=True)
def installed(host: Host) -> Iterator[None]:
    """A running deployment, whatever the module before left; its upstream calls take a while."""
    host.renew()
    host.upstream.respond = slow_upstream
    yield
    host.upstream.respond = None


Record = Callable[[str, object], None]


def _answers(port: int, seconds: float = 60) -> None:
    """Until the service at this port answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=seconds).status_code == 200:
                return
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _loaded(
    port: int, times: int, disturb: Callable[[], object], settle: float = 0.5
) -> tuple[Load, list[float]]:
    """Disturb the service `times` times under load: the load, and the end of each disturbance."""
    moments = []
    with Load(port, PROXY_KEY).running() as load:
        time.sleep(settle)
        for _ in range(times):
            disturb()
            moments.append(time.monotonic())
            _answers(port)
            time.sleep(settle)
    # a load that was not there would pass everything
    assert len(load.gets.requests) >= 0.95 * RATE * (load.seconds - 5)
    assert load.strategies.count("ok") >= CLIENTS
    return load, moments


def _main_pid(host: Host, unit: str = UNIT) -> int:
    return int(host.machine.show(unit, "MainPID"))


def _kill(host: Host, unit: str = UNIT) -> None:
    host.machine.run("kill", "-9", str(_main_pid(host, unit)))


def _worst_of_each(load: Load, moments: list[float]) -> list[float]:
    """The longest short request that began during each disturbance, in seconds."""
    begins = [load.gets.requests[0].begun, *moments]
    return [
        max(r.seconds for r in load.gets.requests if begin <= r.begun < end)
        for begin, end in pairwise(begins)
    ]


def test_nobody_notices_optictl_restart(host: Host, record_property: Record) -> None:
    pids = {_main_pid(host)}

    def restart() -> None:
        host.optictl("restart")
        pids.add(_main_pid(host))

    load, moments = _loaded(host.port, RESTARTS, restart)
    record_property("load", row(f"{RESTARTS} optictl restart", load))
    assert len(pids) == RESTARTS + 1
    for tally in (load.gets, load.strategies):
        assert tally.count("refused", "dropped") == 0
        assert tally.others == []
    assert statistics.median(_worst_of_each(load, moments)) <= SHORT


def test_systemctl_restart_loses_nothing(host: Host, record_property: Record) -> None:
    load, _ = _loaded(host.port, 5, lambda: host.machine.run("systemctl", "restart", UNIT))
    record_property("load", row("5 systemctl restart", load))
    for tally in (load.gets, load.strategies):
        assert tally.count("refused", "dropped") == 0
        assert tally.others == []


def test_a_kill_loses_only_what_was_in_flight(host: Host, record_property: Record) -> None:
    load, moments = _loaded(host.port, 5, lambda: _kill(host), settle=2.0)
    record_property("load", row("5 kill -9", load))
    for tally in (load.gets, load.strategies):
        assert tally.count("refused") == 0
        assert tally.others == []
        lost = tally.all("dropped")
        # whoever came after a kill waited in the backlog
        assert all(any(moment - 5 < r.begun < moment for moment in moments) for r in lost)
        assert len(lost) <= CLIENTS * len(moments)
    # each kill met strategies in flight: the load was there
    assert load.strategies.count("dropped") > 0


def test_a_plain_unit_refuses_and_drops(host: Host, record_property: Record) -> None:
    port = free_port()
    text = PLAIN_UNIT.format(
        port=port, upstream=host.upstream.base_url, key=PROXY_KEY, upstream_key=UPSTREAM_KEY
    )
    host.machine.write(f"/run/systemd/system/{PLAIN}", text)
    try:
        host.machine.run("systemctl", "daemon-reload")
        host.machine.run("systemctl", "start", PLAIN)
        _answers(port)
        load, _ = _loaded(port, 5, lambda: host.machine.run("systemctl", "restart", PLAIN))
        record_property("load", row("plain unit: 5 systemctl restart", load))
        assert load.gets.count("refused") > 0
        assert load.strategies.count("dropped") > 0
        load, _ = _loaded(port, 2, lambda: _kill(host, PLAIN))
        record_property("load", row("plain unit: 2 kill -9", load))
        assert load.gets.count("refused") > 0
    finally:
        host.machine.run("systemctl", "stop", PLAIN, check=False)
        host.machine.run("rm", "-rf", f"/run/systemd/system/{PLAIN}", "/var/lib/plain-optillm")
        host.machine.run("systemctl", "daemon-reload")


def test_a_sibling_that_cannot_start_stops_nothing(host: Host) -> None:
    """A configuration that the guard refuses is found out by the sibling; the service goes on."""
    pid = _main_pid(host)
    host.machine.write(f"{ETC}/env", f"OPENAI_API_KEY={UPSTREAM_KEY}\nOPTILLM_API_KEY=x\n", 0o600)
    try:
        with Load(host.port, PROXY_KEY).running() as load:
            failed = host.optictl("restart", check=False)
        said = failed.stdout + failed.stderr
        assert failed.returncode == 1, said
        assert "the sibling did not become ready; the service was not touched" in said
        assert "OPTILLM_API_KEY is set" in said
        assert _main_pid(host) == pid
        assert load.gets.count("ok") == len(load.gets.requests) > 0
        assert load.strategies.count("ok") == len(load.strategies.requests) > 0
        assert host.machine.show("optillm-proxy-next.service", "LoadState") == "not-found"
    finally:
        host.configure()
    host.optictl("restart")
    assert _main_pid(host) != pid


@pytest.mark.parametrize("command", [("stop", UNIT), ("restart", UNIT)], ids=["stop", "restart"])
def test_what_a_drain_cannot_finish_is_answered(host: Host, command: tuple[str, ...]) -> None:
    host.upstream.respond = lambda seen: (
        Reply(body=completion(seen.body or {}), delay=20) if seen.body else None
    )
    answers: list[httpx.Response] = []
    try:
        host.configure(drain=2)
        host.optictl("install", "--yes", "--no-smoke")
        asking = threading.Thread(target=lambda: answers.append(host.ask()))
        calls = len(host.upstream.calls())
        asking.start()
        while len(host.upstream.calls()) == calls:
            assert asking.is_alive()
            time.sleep(0.05)
        since = time.monotonic()
        host.machine.run("systemctl", *command)
        asking.join(10)
        assert time.monotonic() - since < 15
    finally:
        host.upstream.respond = slow_upstream
        host.configure()
        host.optictl("install", "--yes")
    (answer,) = answers
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert json.loads(answer.text)["error"]["code"] == "draining"
