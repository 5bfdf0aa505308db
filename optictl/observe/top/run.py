"""`optictl top`: takes snapshots of the service at an interval and shows them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import MissingFact
from optictl.facts import guard_state
from optictl.host import terminal
from optictl.host.systemd import Systemd
from optictl.observe.top import model
from optictl.observe.top.model import Screen, Snapshot

#: Rates are averages over this many seconds, or over one longer interval: shorter ones would jump.
WINDOW = 60


def take_snapshot(config: Config, key: str, systemd: Systemd | None, unit_name: str) -> Snapshot:
    """A snapshot of the guard's state and of the unit. It costs no tokens."""
    unit = systemd.show(unit_name) if systemd else None
    try:
        state = guard_state.read(config, key)
        metrics = guard_state.ask(config, key, "/metrics")
        at = time.monotonic()
        return Snapshot(at, "", state, model.parse(metrics.text), unit)
    except MissingFact as missing:
        problem = missing.what
    except ValueError:
        problem = "the port is served by a program without the guard"
    return Snapshot(time.monotonic(), problem, unit=unit)


Show = Callable[[Screen, bool], None]


def watch(
    config: Config,
    paths: Paths,
    key: str,
    *,
    interval: float,
    count: int | None,
    show: Show,
    wait: Callable[[float], str],
) -> Screen:
    """Show a screen every `interval` seconds, `count` times or until `q` is typed; return the last.

    `wait` waits a number of seconds, or until a key is typed, which it returns.
    """
    systemd = None if paths.is_private else Systemd(paths.scope)
    if systemd is not None and not systemd.available():
        systemd = None
    snapshots: deque[Snapshot] = deque()
    rounds, paused = 0, False
    while True:
        now = take_snapshot(config, key, systemd, paths.service_unit)
        # with a long interval, only the last snapshot remains
        while len(snapshots) > 1 and (snapshots[0].problem or now.at - snapshots[0].at > WINDOW):
            snapshots.popleft()
        screen = model.screen(snapshots[0] if snapshots else None, now)
        snapshots.append(now)
        show(screen, False)
        rounds += 1
        if count is not None and rounds >= count:
            return screen
        until = time.monotonic() + interval
        while paused or time.monotonic() < until:
            typed = wait(max(0.0, until - time.monotonic()) if not paused else interval)
            if typed == "q":
                return screen
            if typed == "p":
                paused = not paused
                show(screen, paused)


def run(
    config: Config, paths: Paths, key: str, show: Show, *, interval: float, count: int | None
) -> bool:
    """Watch the service, and read keys from a terminal.

    Whether the service was ready at the end.
    """
    with terminal.keys() as wait:
        return watch(config, paths, key, interval=interval, count=count, show=show, wait=wait).ready
