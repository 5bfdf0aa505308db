"""start: time from spawn to the first 200 of /health, and memory when idle."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from benchmarks.figures import Figure, Part, Row, figure
from benchmarks.lab import Lab, say
from benchmarks.servers import Server, bare, empty_directory, guarded, memory, upstream

TITLE = "Start and memory"
RUNS, FULL_RUNS = 5, 3
#: Seconds after readiness until a server is idle.
REST = 1.0
NOTES = [
    "Time from spawn to the first 200 on `/health`, asked every 10 ms; memory summed over the "
    "process tree (the guarded "
    f"release is gunicorn's master and one worker), {REST:g} s later. RSS counts pages that the "
    "two share twice, PSS once.",
    "The full install in two ways: with its bytecode written by an earlier start (the favourable "
    "case: the program may "
    "write it), and without, as behind a hardened unit. Every side was started once before, so "
    "its files were in memory.",
    "All sides: the same interpreter, a clean environment, not root, an instant upstream; the "
    "bare ones with "
    "`HF_HUB_OFFLINE=1`, so that no time is spent on model files.",
]

Starter = Callable[[], AbstractContextManager[Server]]


@dataclass
class Side:
    """A way to run OptiLLM, and its figures."""

    name: str
    start: Starter | None
    runs: int
    seconds: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)
    pss: list[float | None] = field(default_factory=list)

    def run(self, keep: bool) -> None:
        if self.start is None:
            return
        with self.start() as server:
            time.sleep(REST)
            rss, pss = memory(server.pid)
        if keep:
            self.seconds.append(server.started)
            self.rss.append(rss)
            self.pss.append(pss)

    def figures(self) -> dict[str, Figure | None]:
        return {"seconds": figure(self.seconds), "rss": figure(self.rss), "pss": figure(self.pss)}


def measure(lab: Lab) -> Part:
    """One unmeasured run of each side (page cache, bytecode), then alternating runs."""
    release, full = lab.release, lab.full
    with upstream() as port:
        url = f"http://127.0.0.1:{port}/v1"
        ours = Side("guarded release", lambda: guarded(release, url), RUNS)
        lean = Side("bare optillm, same closure", lambda: bare(release / ".venv", url), RUNS)
        warm = Side("full install, bytecode written", None, FULL_RUNS)
        cold = Side("full install, bytecode not writable", None, FULL_RUNS)
        if full is not None:
            bytecode = str(empty_directory(lab.place))
            warm.start = lambda: bare(full, url, PYTHONPYCACHEPREFIX=bytecode)
            cold.start = lambda: bare(full, url, PYTHONDONTWRITEBYTECODE="1")
        for turn in range(RUNS + 1):
            for side in (ours, lean, warm, cold):
                if side.start and turn <= side.runs:
                    say(
                        f"start: {side.name}, {f'run {turn} of {side.runs}' if turn else 'warm-up'}"
                    )
                    side.run(keep=turn > 0)

    def row(what: str, unit: str, name: str, other: Side, limit: float | None = None) -> Row:
        return Row(what, unit, ours.figures()[name], other.name, other.figures()[name], limit)

    return Part(
        [
            row("start to first 200", "s", "seconds", warm, 1 / 3),
            row("start to first 200", "s", "seconds", cold),
            row("start to first 200", "s", "seconds", lean),
            row("RSS at rest", "MiB", "rss", warm, 1 / 5),
            row("RSS at rest", "MiB", "rss", lean),
            row("PSS at rest", "MiB", "pss", warm),
            row("PSS at rest", "MiB", "pss", lean),
        ],
        NOTES,
    )
