"""Several workers on one listening socket act as one service; none is lost with another."""

from __future__ import annotations

import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from optictl.proof.standin import Reply, completion
from testing.support import STRATEGIES, Server, assert_well_formed, open_directory, wait_until

from .helpers import CALLS, MARK, Pair, assert_refused, events, guarded_pair, text_of

pytestmark = pytest.mark.slow

WORKERS = 2
FLAGS = ["--workers", str(WORKERS), "--max-traces", "100"]
ONE_WORKER = {"x-optillm-one-worker": "1"}


def state(server: Server) -> dict[str, Any]:
    return dict(server.get("/guard/state").json())


def workers_of(server: Server) -> set[int]:
    """The processes below gunicorn's master."""
    text = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return set(map(int, text.split()))


def all_serve(server: Server) -> None:
    wait_until(
        lambda: state(server)["workers"] == {"wanted": WORKERS, "serving": WORKERS},
        30,
        "both workers",
    )


@pytest.fixture(scope="module")
def running(release: Path) -> Iterator[Pair]:
    with guarded_pair(release, strategies=[*STRATEGIES, "re2"], extra=FLAGS) as pair:
        all_serve(pair.server)
        yield pair


@pytest.fixture
def pair(running: Pair) -> Pair:
    return running.fresh()


def slow(seconds: float) -> Any:
    return lambda seen: Reply(body=completion(seen.body), delay=seconds) if seen.body else None


def ask_many(pair: Pair, count: int) -> list[httpx.Response]:
    """Requests side by side, each with its own connection."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: pair.server.ask("bon-jerry-xl", MARK), range(count)))


def counted(server: Server) -> dict[str, Counter[str]]:
    """worker -> what /metrics says of it, with every label but the worker's summed over."""
    by_worker: dict[str, Counter[str]] = {}
    for family in text_string_to_metric_families(server.get("/metrics").text):
        for sample in family.samples:
            counts = by_worker.setdefault(sample.labels["worker"], Counter())
            counts[sample.name] += sample.value  # type: ignore[assignment]
    return by_worker


def test_what_any_of_them_did_is_counted_once(pair: Pair) -> None:
    before = counted(pair.server)
    pair.upstream.respond = slow(0.05)
    answers = ask_many(pair, 24)
    assert [answer.status_code for answer in answers] == [200] * 24
    after = counted(pair.server)
    assert set(after) == {"0", "1"}
    grown = {worker: after[worker] - before[worker] for worker in after}
    requests = [grown[worker]["optillm_requests_total"] for worker in after]
    assert sum(requests) == 24
    assert min(requests) > 0  # the kernel gives work to both
    calls = sum(grown[worker]["optillm_upstream_calls_total"] for worker in after)
    assert calls == len(pair.upstream.calls()) == 24 * CALLS["bon"]


def test_promtool_finds_nothing_odd(pair: Pair, prometheus_program: Path) -> None:
    assert_well_formed(prometheus_program, pair.server.get("/metrics").text)


def test_each_trace_is_found_through_either(pair: Pair) -> None:
    traces = {answer.headers["x-optillm-trace"] for answer in ask_many(pair, 8)}
    for _ in range(4):
        told = pair.server.get("/guard/traces").json()["traces"]
        ended = [one["began"] + one["seconds"] for one in told]
        assert {one["trace"] for one in told[:8]} == traces
        assert ended == sorted(ended, reverse=True)
        for trace in traces:
            whole = pair.server.get(f"/guard/traces/{trace}").json()
            assert (whole["trace"], len(whole["calls"])) == (trace, CALLS["bon"])
    assert_refused(pair.server.get("/guard/traces/" + "0" * 32), 404, "trace_unknown")


def test_the_state_tells_all_that_is_in_flight(pair: Pair) -> None:
    pair.upstream.respond = slow(1)
    with ThreadPoolExecutor(8) as pool:
        coming = [pool.submit(pair.server.ask, "re2-jerry-xl") for _ in range(8)]
        wait_until(lambda: len(state(pair.server)["in_flight"]) == 8)
        told = state(pair.server)
        one = httpx.get(
            pair.server.url.removesuffix("/v1") + "/guard/state",
            headers={"Authorization": f"Bearer {pair.server.key}", **ONE_WORKER},
        ).json()
        assert [future.result().status_code for future in coming] == [200] * 8
    assert told["max_in_flight"] == WORKERS * one["max_in_flight"]
    assert len(one["in_flight"]) < 8
    ages = [entry["age"] for entry in told["in_flight"]]
    assert ages == sorted(ages, reverse=True)


def test_a_worker_that_is_killed_costs_its_own_requests_and_is_replaced(pair: Pair) -> None:
    pair.upstream.respond = slow(1)
    killed, *others = sorted(workers_of(pair.server))
    outcomes: Counter[str] = Counter()

    def ask(_: int) -> None:
        try:
            outcomes[str(pair.server.ask("re2-jerry-xl").status_code)] += 1
        except httpx.TransportError:
            outcomes["dropped"] += 1

    with ThreadPoolExecutor(12) as pool:
        coming = [pool.submit(ask, n) for n in range(12)]
        wait_until(lambda: len(state(pair.server)["in_flight"]) == 12)
        os.kill(killed, signal.SIGKILL)
        for _ in range(10):  # newcomers are served at once
            assert pair.server.get("/health").status_code == 200
            assert state(pair.server)["workers"]["serving"] >= 1
        for future in coming:
            future.result()
    assert set(outcomes) <= {"200", "dropped"}
    assert 0 < outcomes["dropped"] < 12
    all_serve(pair.server)
    assert set(others) < workers_of(pair.server)
    assert killed not in workers_of(pair.server)
    assert text_of(pair.server.ask("moa-jerry-xl"))


def test_a_stop_lets_both_finish(release: Path) -> None:
    with guarded_pair(release, strategies=["re2"], extra=FLAGS) as pair:
        all_serve(pair.server)
        pair.upstream.respond = slow(1.5)
        with ThreadPoolExecutor(8) as pool:
            coming = [pool.submit(pair.server.ask, "re2-jerry-xl") for _ in range(8)]
            wait_until(lambda: len(state(pair.server)["in_flight"]) == 8)
            pair.server.process.send_signal(signal.SIGTERM)
            assert [future.result().status_code for future in coming] == [200] * 8
        assert pair.server.process.wait(10) == 0


def test_ready_means_all_of_them_and_one_that_hangs_is_replaced(release: Path) -> None:
    with open_directory() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = directory / "notify"
        manager.bind(str(address))
        address.chmod(0o777)
        manager.settimeout(30)
        heard: list[str] = []

        def hear(word: str) -> str:
            """The next notification with `word` in it."""
            while word not in (message := manager.recv(4096).decode()):
                heard.append(message)
            return message

        # as with WatchdogSec=1
        variables = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "1000000"}
        with guarded_pair(release, strategies=["re2"], extra=FLAGS, environment=variables) as pair:
            ready = hear("READY=1")
            assert "STATUS=serving with 2 of 2 workers, 0 in flight" in ready
            assert not any("2 of 2" in message for message in heard)
            assert state(pair.server)["workers"]["serving"] == WORKERS
            hung, other = sorted(workers_of(pair.server))
            os.kill(hung, signal.SIGSTOP)
            hear(
                "1 of 2 workers"
            )  # it is dead, and nobody has cut the service off meanwhile: WATCHDOG came each time
            hear("2 of 2 workers")
            assert state(pair.server)["workers"]["serving"] == WORKERS
            assert other in workers_of(pair.server)
            assert hung not in workers_of(pair.server)
            assert [
                line["pid"] for line in events(pair.server) if line["event"] == "worker_hung"
            ] == [hung]
            assert not any("READY=1" in message for message in heard)
