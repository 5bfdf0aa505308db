"""`python -m benchmarks strategies [--rounds N]`: how long do clients of a strategy wait?

A release is compared with bare OptiLLM on an upstream that takes 1 s a call. Then: memory and
threads with 64 requests at the same time, and the same strategies on a real model. STRATEGIES.md
gets the tables.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import crowds, real_model, slow_clients
from benchmarks.lab import Lab, laboratory, say
from benchmarks.servers import Server, bare, calls, guarded, slow_upstream
from benchmarks.strategies_tables import Results, Row, report

STRATEGIES = ("self_consistency", "bon", "moa", "plansearch")
ROUNDS = 3
#: Chunks of the final text of moa where its stream is measured, and of any other text.
LONG, USUAL = 40, 20
#: Seconds until the client leaves, and until every call of `plansearch` would have begun.
LEFT, SILENCE = 0.5, 4.5
#: The longest time in which an open call is closed after its client left.
CLOSED = 1.0


@dataclass(frozen=True)
class Kind:
    """A kind of request. `mode`: of the upstream; `goal`: seconds of the guarded release."""

    what: str
    strategy: str
    mode: str
    goal: float
    n: int = 1


KINDS = (
    Kind("`self_consistency`", "self_consistency", "honour", 1.3),
    Kind("`bon`", "bon", "honour", 2.3),
    Kind("`bon`, `n: 3`", "bon", "honour", 2.6, n=3),
    Kind("`moa`, upstream refuses `n`", "moa", "refuse", 3.3),
    Kind("`moa`, upstream ignores `n`", "moa", "ignore", 3.3),
)


@dataclass(frozen=True)
class Programs:
    """Both programs in front of one upstream, by port."""

    guarded: Server
    bare: Server
    upstream: int

    def in_turn(self, round: int) -> list[tuple[str, Server]]:
        """Both with their names. Each is the first one in every second round."""
        both = [("guarded", self.guarded), ("bare", self.bare)]
        return both if round % 2 == 0 else both[::-1]


@contextmanager
def programs(release: Path, mode: str, chunks: int = USUAL) -> Iterator[Programs]:
    """Both programs, and an upstream of this mode with final texts of this length."""
    with slow_upstream(mode, chunks) as port:
        url = f"http://127.0.0.1:{port}/v1"
        with guarded(release, url, STRATEGIES) as ours, bare(release / ".venv", url) as other:
            yield Programs(ours, other, port)


def waits(both: Programs, kind: Kind, rounds: int) -> Row:
    """The seconds of a request, and its upstream calls."""
    taken: dict[str, list[float]] = defaultdict(list)
    made: dict[str, set[int]] = defaultdict(set)
    for turn in range(-1, rounds):
        say(f"strategies: {kind.what}, round {turn + 1} of {rounds}")
        for name, server in both.in_turn(turn):
            before = calls(both.upstream).started
            more = {"n": kind.n} if kind.n > 1 else {}
            answer = slow_clients.ask(server.port, kind.strategy, more=more)
            if turn >= 0:  # the first request learns whether the upstream honours `n`
                taken[name].append(answer.seconds)
                made[name].add(calls(both.upstream).started - before)
    return Row(
        kind.what,
        "s",
        tuple(taken["guarded"]),
        tuple(taken["bare"]),
        kind.goal,
        calls=(_range(made["guarded"]), _range(made["bare"])),
    )


def _range(counts: set[int]) -> str:
    """`4`, or `4 to 6`."""
    ends = sorted({min(counts), max(counts)})
    return " to ".join(map(str, ends))


def streams(both: Programs, rounds: int) -> list[Row]:
    """The first token of moa, and how long before the end it comes."""
    firsts: dict[str, list[float]] = defaultdict(list)
    rests: dict[str, list[float]] = defaultdict(list)
    for turn in range(-1, rounds):
        say(f"strategies: stream of moa, round {turn + 1} of {rounds}")
        for name, server in both.in_turn(turn):
            answer = slow_clients.ask(server.port, "moa", stream=True)
            if turn >= 0:
                firsts[name].append(answer.first)
                rests[name].append(answer.seconds - answer.first)
    what = f"`moa`, stream of {LONG} chunks"
    return [
        Row(f"{what}: first token", "s", tuple(firsts["guarded"]), tuple(firsts["bare"]), 2.3),
        Row(
            f"{what}: from there to the end",
            "s",
            tuple(rests["guarded"]),
            tuple(rests["bare"]),
            1.5,
            above=True,
        ),
    ]


def leaves(both: Programs, rounds: int, stream: bool) -> list[Row]:
    """Calls that start after the client of plansearch left, and when the open one is closed."""
    late: dict[str, list[float]] = defaultdict(list)
    closed: dict[str, list[float]] = defaultdict(list)
    for turn in range(rounds):
        say(f"strategies: a client that leaves, round {turn + 1} of {rounds}")
        for name, server in both.in_turn(turn):
            known = len(calls(both.upstream).closed)
            left = slow_clients.leave(
                server.port, "plansearch", after=LEFT, more={"stream": stream}
            )
            before = calls(both.upstream).started
            time.sleep(SILENCE)
            now = calls(both.upstream)
            late[name].append(now.started - before)
            closed[name] += [at - left for at in now.closed[known:]]
    what = f"client of `plansearch` left{', stream' if stream else ''}"
    return [
        Row(f"{what}: calls started after", "", tuple(late["guarded"]), tuple(late["bare"]), 0),
        Row(
            f"{what}: open call closed after",
            "s",
            tuple(closed["guarded"]),
            tuple(closed["bare"]),
            CLOSED,
        ),
    ]


def measure(lab: Lab, results: Results, rounds: int) -> None:
    """Measure the time that clients wait."""
    for mode in dict.fromkeys(kind.mode for kind in KINDS):
        with programs(lab.release, mode) as both:
            results.rows += [waits(both, kind, rounds) for kind in KINDS if kind.mode == mode]
    with programs(lab.release, "honour", LONG) as both:
        results.rows += streams(both, rounds)
        for stream in (False, True):
            results.rows += leaves(both, rounds, stream)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and write them."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks strategies", description="How long clients of a strategy wait."
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument("--no-model", action="store_true", help="leave out the real model")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).with_name("STRATEGIES.md"), metavar="FILE"
    )
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    results, load = Results(), os.getloadavg()[0]
    with laboratory(full=False) as lab:
        measure(lab, results, options.rounds)
        results.crowds += crowds.measure(lab, STRATEGIES)
        if not options.no_model:
            results.real += real_model.measure(lab, STRATEGIES)
    text = report(results, load, real_model.ROUNDS, real_model.TOKENS)
    print(text)
    options.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
