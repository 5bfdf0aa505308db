"""`optictl top`: takes snapshots of the service at an interval and shows them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.host import network, terminal
from optictl.host.systemd import Systemd
from optictl.observe.top import model
from optictl.observe.top.model import Screen, Snapshot
from optictl.proof import evidence

#: Rates are averages over this many seconds, or over one longer interval: shorter ones would jump.
WINDOW = 60
_TIMEOUT = 5


def look(config: Config, key: str, systemd: Systemd | None, unit: str) -> Snapshot:
    """A snapshot of the guard's state and of the unit. It costs no tokens."""
    address = config.url.removesuffix("/v1")
    shown_unit = systemd.show(unit) if systemd else None
    answers = [
        network.request("GET", f"{address}{path}", key=key, timeout=_TIMEOUT)
        for path in ("/guard/state", "/metrics")
    ]
    at = time.monotonic()
    for answer in answers:
        if answer.status == 404:
            return Snapshot(
                at,
                "the active release does not report its state: it is older than this optictl",
                unit=shown_unit,
            )
        if answer.status != 200:
            return Snapshot(at, evidence.error_message(answer), unit=shown_unit)
    state, metrics = answers
    try:
        return Snapshot(
            at,
            "",
            state.data if isinstance(state.data, dict) else {},
            model.parse(metrics.text),
            shown_unit,
        )
    except ValueError:
        return Snapshot(at, "the port is served by a program without the guard", unit=shown_unit)


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
        now = look(config, key, systemd, paths.service_unit)
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
