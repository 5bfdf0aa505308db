"""`optictl top`: takes snapshots of the service at an interval and shows them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

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


def take_snapshot(config: Config, key: str, systemd: Systemd | None, paths: Paths) -> Snapshot:
    """A snapshot of the guard's state and of all units. It costs no tokens."""
    shown = systemd.show_all(*paths.unit_names) if systemd else []
    unit = shown[0] if shown else None
    others = tuple(each for each in shown[1:] if each.loaded)
    try:
        state = guard_state.read(config, key)
        metrics = guard_state.ask(config, key, "/metrics")
        at = time.monotonic()
        return Snapshot(at, "", state, model.parse(metrics.text), unit, others)
    except MissingFact as missing:
        problem = missing.what
    except ValueError:
        problem = "the port is served by a program without the guard"
    return Snapshot(time.monotonic(), problem, unit=unit, others=others)


#: Seconds after which a screen is drawn again, because the terminal may have another size.
_REDRAW = 0.5


@dataclass(frozen=True)
class Mode:
    """How a screen is shown. `fresh`: its figures are new; else it is drawn again."""

    paused: bool = False
    help: bool = False
    fresh: bool = True


Show = Callable[[Screen, Mode], None]


class _Keys:
    """The keys that were typed: q ends, p pauses, ? shows the help."""

    def __init__(self) -> None:
        self.ended = self.paused = self.help = False

    def typed(self, key: str) -> None:
        """Take a key, "" for none."""
        self.ended = key == "q"
        if key == "p":
            self.paused = not self.paused
        if key in ("?", "h"):
            self.help = not self.help

    def mode(self, *, fresh: bool) -> Mode:
        return Mode(self.paused, self.help, fresh)


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

    `wait` waits a number of seconds, or until a key is typed, which it returns. In between, and
    while it is paused, the last screen is drawn again.
    """
    systemd = None if paths.is_private else Systemd(paths.scope)
    if systemd is not None and not systemd.available():
        systemd = None
    snapshots: deque[Snapshot] = deque()
    rounds, keys = 0, _Keys()
    while True:
        now = take_snapshot(config, key, systemd, paths)
        # with a long interval, only the last snapshot remains
        while len(snapshots) > 1 and (snapshots[0].problem or now.at - snapshots[0].at > WINDOW):
            snapshots.popleft()
        screen = model.screen(snapshots[0] if snapshots else None, now)
        snapshots.append(now)
        show(screen, keys.mode(fresh=True))
        rounds += 1
        if count is not None and rounds >= count:
            return screen
        until = time.monotonic() + interval
        while keys.paused or time.monotonic() < until:
            left = _REDRAW if keys.paused else until - time.monotonic()
            keys.typed(wait(max(0.0, min(left, _REDRAW))))
            if keys.ended:
                return screen
            show(screen, keys.mode(fresh=False))


def run(
    config: Config, paths: Paths, key: str, show: Show, *, interval: float, count: int | None
) -> bool:
    """Watch the service, and read keys from a terminal.

    Whether the service was ready at the end.
    """
    with terminal.keys() as wait:
        return watch(config, paths, key, interval=interval, count=count, show=show, wait=wait).ready
