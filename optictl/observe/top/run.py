"""`optictl top`: looks at the service again and again, and shows what it sees."""

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

#: Rates are taken over so many seconds, or over one interval that is longer: those of a short one would jump.
WINDOW = 60
_TIMEOUT = 5


def look(config: Config, key: str, systemd: Systemd | None, unit: str) -> Snapshot:
    """One look at the guard and at systemd. It costs no token."""
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
                "the release in force tells nothing of itself: it is older than this optictl",
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
        return Snapshot(at, "what serves the port is no guarded OptiLLM", unit=shown_unit)


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
    """Look every `interval` seconds and show it, `count` times or until `q` is typed; the last screen.

    `wait` waits so many seconds, or less where a key is typed, which it returns.
    """
    systemd = None if paths.is_private else Systemd(paths.scope)
    if systemd is not None and not systemd.available():
        systemd = None
    seen: deque[Snapshot] = deque()
    rounds, paused = 0, False
    while True:
        now = look(config, key, systemd, paths.service_unit)
        while len(seen) > 1 and (seen[0].problem or now.at - seen[0].at > WINDOW):
            seen.popleft()  # with a long interval the last look alone is left
        screen = model.screen(seen[0] if seen else None, now)
        seen.append(now)
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
    """Watch on the screen of a terminal, or line by line; whether the service was ready at the end."""
    with terminal.keys() as wait:
        return watch(config, paths, key, interval=interval, count=count, show=show, wait=wait).ready
