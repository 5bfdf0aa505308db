"""serve: added latency and throughput of the guarded and the bare proxy, in one environment."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import clients
from benchmarks.figures import Figure, Part, Row, figure
from benchmarks.lab import Lab, say
from benchmarks.servers import Server, bare, completions, cpu_seconds, guarded, upstream
from testing.load import percentile

TITLE = "Serving"
#: Strategy -> upstream calls of one request.
STRATEGIES = {"moa": 3, "re2": 1}
#: Strategy -> how many times the requests/s of bare OptiLLM are expected.
RATES = {"moa": 6, "re2": 10}
_FLOOR = Path(__file__).with_name("floor.py")
ROUNDS, WARM_UP, SEQUENTIAL, CONCURRENT, CLIENTS = 5, 10, 100, 200, 8
NOTES = [
    f"{ROUNDS} alternating rounds. A round is {SEQUENTIAL} sequential requests, then {CONCURRENT} "
    f"from {CLIENTS} "
    "clients with kept-alive connections. Clients, upstream and the program under test are three "
    "processes on the "
    "same cores.",
    "Added latency: the client's p50 (p95) minus the upstream's share: the p50 of direct calls "
    "times the calls "
    "of the strategy.",
    "The benchmark fails unless both sides make exactly the upstream calls of the strategy. The "
    "guarded release runs "
    "with `--approach proxy` and logs each request. Bare OptiLLM runs without `--approach`: with "
    "it, no strategy "
    "would run.",
    "CPU: user and system time of the program's processes with 8 clients. Other load on the "
    "machine affects this figure "
    "least.",
    "The floor is what a proxy in Python cannot do without: one bare httpx2 call, and an empty "
    "ASGI application on uvicorn with httptools, each in its own process. Above it are OptiLLM's "
    "strategy, the guard's checks, accounting and log, and the threads' turns.",
]


@dataclass
class Side:
    """A program and its figures by name, one value per round."""

    name: str
    server: Server
    upstream: int
    found: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def run(self, strategy: str, direct: float) -> None:
        """Run a round.

        Raises an error when the number of upstream calls is not the expected one.
        """
        calls, model, port = STRATEGIES[strategy], f"{strategy}-jerry-xl", self.server.port
        before = completions(self.upstream)
        taken = clients.sequential(port, model, SEQUENTIAL)
        cpu = cpu_seconds(self.server.pid)
        answered, seconds = clients.concurrent(port, model, CONCURRENT, CLIENTS)
        cpu = cpu_seconds(self.server.pid) - cpu
        caused, expected = completions(self.upstream) - before, calls * (len(taken) + answered)
        if caused != expected:
            raise RuntimeError(
                f"{self.name}: {strategy} caused {caused} upstream calls instead of {expected}"
            )
        self.found["p50"].append(percentile(taken, 0.5) - calls * direct)
        self.found["p95"].append(percentile(taken, 0.95) - calls * direct)
        self.found["rate"].append(answered / seconds)
        self.found["cpu"].append(cpu / answered * 1000)


def _compare(strategy: str, release_sides: tuple[Side, Side]) -> tuple[list[Row], list[float]]:
    """ROUNDS rounds of both sides in alternating order, and the medians of direct calls."""
    ours, other = release_sides
    direct = []
    for side in release_sides:
        clients.sequential(side.server.port, f"{strategy}-jerry-xl", WARM_UP)
    for turn in range(ROUNDS):
        say(f"serve: {strategy}, round {turn + 1} of {ROUNDS}")
        direct.append(
            percentile(clients.sequential(ours.upstream, "jerry-xl", 2 * SEQUENTIAL), 0.5)
        )
        for side in (ours, other) if turn % 2 == 0 else (other, ours):
            side.run(strategy, direct[-1])
    calls = STRATEGIES[strategy]
    label = f"{strategy} ({calls} upstream call{'s' if calls > 1 else ''})"

    def row(
        what: str, unit: str, name: str, limit: float | None = None, above: bool = False
    ) -> Row:
        return Row(
            f"{label}: {what}",
            unit,
            figure(ours.found[name]),
            other.name,
            figure(other.found[name]),
            limit,
            above,
        )

    return [
        row("added latency, p50", "ms", "p50", 1 / 10),
        row("added latency, p95", "ms", "p95", 1 / 10),
        row(f"requests/s at {CLIENTS} clients", "1/s", "rate", RATES[strategy], above=True),
        row("CPU per request", "ms", "cpu"),
    ], direct


def _floor(python: Path, port: int) -> tuple[list[float], list[float]]:
    """The CPU milliseconds of a bare httpx2 call, and of a request to an empty application."""
    calls, requests = [], []
    program = [str(python), "-I", str(_FLOOR)]
    for turn in range(ROUNDS):
        say(f"serve: floor, round {turn + 1} of {ROUNDS}")
        run = [*program, str(port), str(5 * CONCURRENT)]
        done = subprocess.run(run, check=True, capture_output=True, text=True)
        calls.append(float(done.stdout))
        with subprocess.Popen(
            [*program, "0", "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            own = int(process.stdout.readline())
            clients.sequential(own, "jerry-xl", WARM_UP)
            cpu = cpu_seconds(process.pid)
            answered, _ = clients.concurrent(own, "jerry-xl", 5 * CONCURRENT, CLIENTS)
            requests.append((cpu_seconds(process.pid) - cpu) / answered * 1000)
            process.stdin.close()
    return calls, requests


def _above_floor(ours: Figure | None, calls: list[float], requests: list[float]) -> list[Row]:
    """The CPU time of `re2` with one call, beside that of the parts that it cannot do without."""
    both = [call + request for call, request in zip(calls, requests, strict=True)]
    label = "re2 (1 upstream call): CPU per request"
    return [
        Row(label, "ms", ours, "floor: a bare httpx2 call", figure(calls)),
        Row(label, "ms", ours, "floor: an empty ASGI application", figure(requests)),
        Row(label, "ms", ours, "floor: both", figure(both)),
    ]


def measure(lab: Lab) -> Part:
    """Both programs run; only one gets requests at a time."""
    release = lab.release
    part = Part()
    shares: list[float] = []
    with upstream() as port:
        url = f"http://127.0.0.1:{port}/v1"
        for strategy in STRATEGIES:
            with (
                guarded(release, url, tuple(STRATEGIES)) as ours,
                bare(release / ".venv", url) as other,
            ):
                sides = (
                    Side("guarded release", ours, port),
                    Side("bare optillm, same closure", other, port),
                )
                rows, direct = _compare(strategy, sides)
            part.rows += rows
            shares += direct
        calls, requests = _floor(release / ".venv/bin/python", port)
        part.rows += _above_floor(part.rows[-1].ours, calls, requests)
    part.notes = [*NOTES, f"A direct call to the upstream took {figure(shares)} ms (p50 a round)."]
    return part
