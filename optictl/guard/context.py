"""What a running guard consists of. It is passed to the parts that need it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from .connections import Connections
from .inflight import InFlight
from .limiter import Limiter
from .loops import LoopBreaker
from .metrics import Meter
from .recent import RecentEffects
from .runner import Runner
from .settings import Settings
from .traces import Traces
from .upstream import Upstream
from .workers import Workers


@dataclass
class GuardContext:
    """The state of one guard.

    `build`: the versions of OptiLLM, guard and release. `strategies`: the enabled ones that OptiLLM
    loaded, sorted.
    """

    settings: Settings
    build: dict[str, str]
    strategies: list[str]
    runner: Runner
    upstream: Upstream
    inflight: InFlight
    limiter: Limiter
    breaker: LoopBreaker
    connections: Connections
    meter: Meter
    traces: Traces
    recent: RecentEffects
    workers: Workers
    #: seconds of the monotonic clock
    started: float = field(default_factory=time.monotonic)
