"""What the guard of a running service says about itself: its answer to /guard/state."""

from __future__ import annotations

from dataclasses import dataclass, field

from optictl import __version__, records
from optictl.deployment.config import Config
from optictl.errors import MissingFact
from optictl.host import network
from optictl.host.network import Response
from optictl.proof import evidence
from optictl.proof.trial import GUARD_HEADER

_TIMEOUT = 5


@dataclass(frozen=True)
class Workers:
    """The number of workers that the service was started with, and of those that answer."""

    wanted: int
    serving: int


@dataclass(frozen=True)
class RequestInFlight:
    """A request that runs a strategy.

    `age`: in seconds. `upstream_open`: calls without an answer.
    """

    trace: str
    strategy: str
    base_model: str
    age: float
    upstream_calls: int
    upstream_open: int


@dataclass(frozen=True)
class StrategyEffect:
    """The effect of the last judged requests of a strategy on a base model.

    `degraded`: requests whose result is no better than one plain call; `weak`: those that lost a
    part of the effect. `codes`: code -> requests with it.
    """

    strategy: str
    base_model: str
    requests: int
    degraded: int
    weak: int = 0
    codes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class GuardState:
    """The state of all workers together; `uptime` in seconds.

    Fields that older guards do not report have a default: None means unknown.
    """

    uptime: float
    ready: bool
    in_flight: tuple[RequestInFlight, ...]
    strategies: tuple[str, ...] = ()
    waiting: int | None = None
    max_in_flight: int | None = None
    workers: Workers | None = None
    effect: tuple[StrategyEffect, ...] | None = None
    optillm: str = ""
    guard: str = ""
    release: str = ""

    @property
    def versions(self) -> list[tuple[str, str]]:
        """(name, version) of what serves, for a page that shall be repeated."""
        named = (("OptiLLM", self.optillm), ("guard", self.guard), ("release", self.release))
        return [("optictl", __version__), *((name, version) for name, version in named if version)]


def ask(config: Config, key: str, path: str) -> Response:
    """The guard's answer to a GET request for a path that only it has. It costs no tokens.

    Raises:
        MissingFact: the answer is not 200; the message says why.
    """
    url = f"{config.url.removesuffix('/v1')}{path}"
    answer = network.request("GET", url, key=key, timeout=_TIMEOUT)
    if answer.status == 404:
        raise MissingFact(
            "the active release does not report its state: it is older than this optictl"
        )
    if answer.status != 200:
        raise MissingFact(evidence.error_message(answer))
    return answer


def read(config: Config, key: str) -> GuardState:
    """The state of the service on this deployment's port.

    Raises:
        MissingFact: it does not answer, is not the guard, or its answer is incomplete.
    """
    return parse(ask(config, key, "/guard/state"))


def parse(answer: Response) -> GuardState:
    """The state in an answer of /guard/state.

    Raises:
        MissingFact: it is not the guard's, or incomplete.
    """
    try:
        return records.parse(GuardState, answer.data)
    except ValueError as error:
        if GUARD_HEADER not in answer.headers:
            raise MissingFact("the port is served by a program without the guard") from None
        raise MissingFact(f"the guard's state cannot be read: {error}") from None
