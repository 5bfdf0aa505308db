"""check: a live check of a deployment under a booted systemd, and its effect on the service.

It needs root.
"""

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
#: Sequential requests of a round. Rounds with and without parallel checks alternate.
REQUESTS, ROUNDS = 40, 5


def _round(host: Host) -> float:
    """The median time of a request for `bon` in a round, in milliseconds."""
    taken = []
    for _ in range(REQUESTS):
        since = time.perf_counter()
        if host.ask().status_code != 200:
            raise RuntimeError("a request failed")
        taken.append((time.perf_counter() - since) * 1000)
    return statistics.median(taken)


@contextmanager
def _checks_beside(host: Host) -> Iterator[None]:
    """Run one check after the other during the block."""
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
    """One unmeasured run (bytecode, caches), then alternating runs, then rounds of requests."""
    # the program must exist before the overlay is mounted: an overlay may not show later changes
    # below
    with packaged() as program, booted() as machine, installed(machine, program) as host:
        say(f"check: {RUNS} runs")
        commands = {"whole": ["check"], "config": ["check", "--only", "config"]}
        for command in commands.values():
            host.optictl(*command)
        asked = len(host.upstream.calls())
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _run in range(RUNS):
            for name, command in commands.items():
                # nsenter waits for its command, and its times include those of the command
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
            "`bon` through the service, with parallel checks: p50",
            "ms",
            figure(beside),
            "without",
            figure(alone),
        ),
    ]
    return Part(
        rows,
        [
            "An installed, sealed deployment in a booted systemd; whole processes from spawn to "
            "exit, bytecode in place.",
            f"{len(found['whole'])} checks made {spent} completions upstream.",
            f"Latency: {ROUNDS} rounds of {REQUESTS} requests (4 upstream calls each, answered at "
            "once), alternately without and with parallel checks on the same cores.",
        ],
    )
