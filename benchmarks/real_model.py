"""Both programs in front of a small real model."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from benchmarks import slow_clients
from benchmarks.lab import Lab, say
from benchmarks.servers import Server, bare, configured
from benchmarks.strategies_tables import Real
from optictl.demo import model
from optictl.deployment.config import Config
from optictl.host import files, network
from optictl.proof.evidence import PROMPT
from testing.kept import model_directory

#: `max_tokens` of a request.
TOKENS = 64
ROUNDS = 3
#: Seconds until the client leaves, and those without a call after which no other one comes.
_LEFT, _SILENCE = 2.0, 2.0
_PAUSE = 0.05
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Kind:
    """A kind of request. `more`: fields of the body."""

    what: str
    strategy: str
    more: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = False
    leaves: bool = False


@dataclass(frozen=True)
class Measured:
    """A request: its seconds, and the tokens that the model wrote for it. `first`, `busy`: as of
    `Real`.
    """

    seconds: float
    tokens: int
    first: float = 0.0
    busy: float = 0.0


def kinds(strategies: Sequence[str]) -> list[Kind]:
    """One of each strategy, several answers, a stream, and a client that leaves."""
    return [
        *(Kind(f"`{strategy}`", strategy) for strategy in strategies),
        Kind("`bon`, `n: 3`", "bon", {"n": 3}),
        Kind("`moa`, stream", "moa", stream=True),
        # its calls would take long
        Kind(
            f"`plansearch`, client left after {_LEFT:g} s",
            "plansearch",
            {"max_tokens": 8 * TOKENS},
            leaves=True,
        ),
    ]


def _text() -> str:
    """A new text each time: llama.cpp keeps what it has computed for the begin of a prompt."""
    return f"This is question {next(_numbers)}. {PROMPT}"


def _metric(url: str, name: str) -> int:
    """A metric of llama.cpp.

    Raises:
        RuntimeError: it has no such metric.
    """
    text = network.request("GET", f"{url.removesuffix('/v1')}/metrics", timeout=60).text
    found = re.search(rf"^llamacpp:{name} (\S+)$", text, re.M)
    if found is None:
        raise RuntimeError(f"llama.cpp has no metric {name}")
    return int(float(found[1]))


def _idle_since(url: str, seconds: float) -> float:
    """When the model ended its last call. It has had nothing to do since, for these seconds."""
    idle = time.monotonic()
    while time.monotonic() - idle <= seconds:
        if _metric(url, "requests_processing") or _metric(url, "requests_deferred"):
            idle = time.monotonic()
        time.sleep(_PAUSE)
    return idle


def _measured(url: str, server: Server, kind: Kind) -> Measured:
    """One request."""
    before, more = _metric(url, "tokens_predicted_total"), {"max_tokens": TOKENS, **kind.more}

    def tokens() -> int:
        return _metric(url, "tokens_predicted_total") - before

    if kind.leaves:
        left = slow_clients.leave(server.port, kind.strategy, _text(), after=_LEFT, more=more)
        busy = max(0.0, _idle_since(url, _SILENCE) - left)
        return Measured(_LEFT + busy, tokens(), busy=busy)
    answer = slow_clients.ask(server.port, kind.strategy, _text(), stream=kind.stream, more=more)
    _idle_since(url, 0.0)
    return Measured(answer.seconds, tokens(), first=answer.first)


def _real(kind: Kind, program: str, measured: Sequence[Measured]) -> Real:
    """The means. Pure."""

    def mean(value: Callable[[Measured], float]) -> float:
        return sum(map(value, measured)) / len(measured)

    return Real(
        kind.what,
        program,
        mean(lambda one: one.seconds),
        mean(lambda one: one.tokens),
        mean(lambda one: one.first) if kind.stream else None,
        mean(lambda one: one.busy) if kind.leaves else None,
    )


def measure(lab: Lab, strategies: Sequence[str]) -> Iterator[Real]:
    """Requests of each kind to both programs in turn, one after the other."""
    with ExitStack() as stack:
        log = stack.enter_context(files.scratch()) / "log"
        url = stack.enter_context(model.serving(model_directory(), "jerry-xl", log))
        config = Config(strategies=tuple(strategies))
        moved = config.moved(network.free_port(), url, request=slow_clients.PATIENCE, drain=1)
        servers = {
            "guarded": stack.enter_context(configured(lab.release, moved)),
            "bare": stack.enter_context(bare(lab.release / ".venv", url)),
        }
        for kind in kinds(strategies):
            found: dict[str, list[Measured]] = {program: [] for program in servers}
            for turn in range(ROUNDS):
                say(f"strategies: {kind.what} on the real model, round {turn + 1} of {ROUNDS}")
                for program in list(servers)[:: 1 if turn % 2 == 0 else -1]:
                    _idle_since(url, 0.0)
                    found[program].append(_measured(url, servers[program], kind))
            yield from (_real(kind, program, measured) for program, measured in found.items())
