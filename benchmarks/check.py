"""check: a whole live check of an installed deployment under a booted systemd, and what the service notices of it. As root."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import cli
from benchmarks.figures import Figure, Part, Row, figure
from benchmarks.lab import Lab, say
from testing.host import Host, installed
from testing.machine import booted
from testing.support import packaged

TITLE = "A live check"
RUNS = 11
#: Requests of a round, one after the other; rounds with and without checks beside them, in turn.
REQUESTS, ROUNDS = 40, 5


def _round(host: Host) -> float:
    """Milliseconds of one request for `bon`, the median of a round."""
    taken = []
    for _ in range(REQUESTS):
        since = time.perf_counter()
        if host.ask().status_code != 200:
            raise RuntimeError("a request failed")
        taken.append((time.perf_counter() - since) * 1000)
    return statistics.median(taken)


@contextmanager
def _checks_beside(host: Host) -> Iterator[None]:
    """One check after the other, until the block ends."""
    ended = threading.Event()

    def loop() -> None:
        while not ended.is_set():
            host.optictl("check")

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def measure(_: Lab) -> Part:
    """One unmeasured run (bytecode, caches), then runs in turn; then rounds of requests with and without checks beside."""
    # the program is there before the overlay is mounted: what changes below one later may not be seen in it
    with packaged() as program, booted() as machine, installed(machine, program) as host:
        say(f"check: {RUNS} runs")
        commands = {"whole": ["check"], "config": ["check", "--only", "config"]}
        for command in commands.values():
            host.optictl(*command)
        asked = len(host.upstream.calls())
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _run in range(RUNS):
            for name, command in commands.items():
                # nsenter waits for what it started, so that its times are the whole command's
                found[name].append(
                    cli.run(host.machine.inside(host.program, *command), dict(os.environ))
                )
        spent = len(host.upstream.calls()) - asked
        say(f"check: {ROUNDS} rounds of {REQUESTS} requests, without and with checks beside them")
        _round(host)
        alone, beside = [], []
        for _run in range(ROUNDS):
            alone.append(_round(host))
            with _checks_beside(host):
                beside.append(_round(host))
    names = ("wall time", "CPU time")
    taken = {
        name: [figure(run[i] for run in runs) for i in range(len(names))]
        for name, runs in found.items()
    }
    rows = [
        Row(
            "`optictl check`, warm: wall time",
            "ms",
            taken["whole"][0],
            "a second",
            Figure((1000.0,)),
            1.0,
        ),
        *(
            Row(
                f"`optictl check`, warm: {what}",
                "ms",
                taken["whole"][i],
                "`check --only config`",
                taken["config"][i],
            )
            for i, what in enumerate(names)
        ),
        Row(
            "`bon` through the service, with checks beside it: p50",
            "ms",
            figure(beside),
            "without",
            figure(alone),
        ),
    ]
    return Part(
        rows,
        [
            "An installed, sealed deployment in a booted systemd; whole processes from spawn to exit, bytecode in place.",
            f"{spent} completions were asked of the upstream by {len(found['whole'])} whole checks.",
            f"Latency: {ROUNDS} rounds of {REQUESTS} requests (4 upstream calls each, answered at once), in turn without "
            "and with one check after the other beside them, which share the cores.",
        ],
    )
