"""Start the service: check, load OptiLLM, and serve with workers of gunicorn.

By default there is one worker: strategies wait for the network. gunicorn takes the listening
socket, passes SIGTERM on, and replaces a dead worker without closing the socket.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import AppImportError
from gunicorn.glogging import Logger

from . import GUARD_VERSION, invariants, logs, watchdog
from .settings import EXIT_CONFIG, Refusal, Settings, parse
from .worker import DRAIN_GRACE, Build, GuardWorker
from .workers import Workers

if TYPE_CHECKING:
    from .context import GuardContext

_SHARED_MEMORY = "/dev/shm"  # noqa: S108


def proxy_config_path() -> Path:
    """The file that OptiLLM's proxy plugin would read. The search is the same as the plugin's."""
    directory = Path.home() / ".optillm"
    for name in ("proxy_config.yaml", "proxy_config.yml"):
        if (directory / name).exists():
            return directory / name
    return directory / "proxy_config.yaml"


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def check(settings: Settings) -> None:
    """Check whether the service may start.

    Raises:
        Refusal: with every reason against a start.
    """
    reasons = invariants.refusals(
        host=settings.host,
        base_url=settings.base_url,
        approach=settings.approach,
        proxy_key=settings.proxy_key,
        environ=os.environ,
        uid=os.getuid(),
        proxy_config=_read(proxy_config_path()),
        env_file=settings.env_file,
    )
    if reasons:
        raise Refusal("; ".join(reasons))


def _release_name(directory: Path) -> str:
    """The name in release.json. In a sealed service the directory has the name `current`."""
    try:
        return str(json.loads((directory / "release.json").read_text())["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return directory.name


def load(settings: Settings, workers: Workers, log: logs.ServiceLog) -> Build:
    """Import OptiLLM in this process, and return what builds the application.

    Raises:
        Refusal: the name of a base model looks like a strategy, or like several.
    """
    # import in the worker: without these modules, gunicorn's master has a quarter of the size
    from . import optillm

    server = optillm.load(settings)
    loaded = optillm.strategies(server)
    missing = sorted(set(settings.strategies) - loaded)
    enabled = sorted(loaded.intersection(settings.strategies))
    logs.write("loaded", optillm=optillm.version(), strategies=enabled, missing=missing)
    log.serving(explain=missing)

    def build() -> tuple[GuardContext, Any]:
        from .app import App

        context = _context(settings, workers, server, enabled)
        return context, App(context)

    return build


def _context(
    settings: Settings, workers: Workers, server: Any, strategies: list[str]
) -> GuardContext:
    """The state of the guard. Called in the event loop."""
    from . import inflight, loops, metrics, optillm, upstream
    from .connections import Connections
    from .context import GuardContext
    from .limiter import Limiter
    from .recent import RecentEffects
    from .runner import Runner
    from .threads import READY_THREADS, Threads
    from .traces import Traces

    loop = asyncio.get_running_loop()
    build = {
        "optillm": optillm.version(),
        "guard": GUARD_VERSION,
        "release": _release_name(Path(__file__).resolve().parent.parent),
    }
    most = settings.max_in_flight
    threads = Threads(min(most, READY_THREADS), keep=most)
    in_flight, limiter = inflight.InFlight(threads), Limiter(most)
    meter = metrics.Meter(
        settings.strategies,
        settings.base_models,
        build,
        lambda: metrics.Load(in_flight.requests(), limiter.waiting),
        deployment=settings.deployment,
        workers=settings.workers,
    )
    conversations = loops.Conversations()
    key = os.environ["OPENAI_API_KEY"].strip()
    client = upstream.Upstream(settings, key, meter.call_ended, conversations, threads)

    def probe(base_model: str, text: str) -> None:
        def answered(text: str) -> None:
            loop.call_soon_threadsafe(breaker.answered, text)

        client.probe(base_model, text, answered)

    breaker = loops.LoopBreaker(
        in_flight, conversations, loops.Probes(settings.proxy_key), probe, workers.tell
    )
    return GuardContext(
        settings=settings,
        build=build,
        strategies=strategies,
        runner=Runner(server, client, threads),
        upstream=client,
        inflight=in_flight,
        limiter=limiter,
        breaker=breaker,
        connections=Connections(
            meter, settings.head_timeout, settings.read_timeout, settings.max_connections
        ),
        meter=meter,
        traces=Traces(settings.max_traces),
        recent=RecentEffects(),
        workers=workers,
    )


class _GunicornLog(Logger):  # type: ignore[misc]
    """Send gunicorn's messages to the log as JSON lines."""

    def setup(self, cfg: Any) -> None:
        self.error_log.setLevel("WARNING")
        self.error_log.propagate = True
        self.access_log.disabled = True


class _Service(BaseApplication):  # type: ignore[misc]
    def __init__(
        self, settings: Settings, manager: watchdog.Manager | None, log: logs.ServiceLog
    ) -> None:
        self.settings, self.log = settings, log
        self.workers = Workers(settings.workers)
        self.relay = watchdog.Relay(manager, settings.workers) if manager is not None else None
        super().__init__()

    def load_config(self) -> None:
        settings = {
            "bind": f"{self.settings.host}:{self.settings.port}",
            "workers": self.settings.workers,
            "worker_class": type("Worker", (GuardWorker,), {"relay": self.relay}),
            # the worker ends the drain itself; this is the limit if it does not
            "graceful_timeout": round(self.settings.drain_timeout) + DRAIN_GRACE,
            "control_socket_disable": True,
            "logger_class": _GunicornLog,
            "proc_name": "optillm-proxy",
            # gunicorn's heartbeat changes a file: use memory if possible
            "worker_tmp_dir": _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None,
            "when_ready": self._master_ready,
            "pre_fork": self._give_place,
            "post_fork": self._forked,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def _master_ready(self, master: Arbiter) -> None:
        watchdog.outlive_workers_on_abort(master.WORKERS.keys())
        if self.relay is not None:
            self.relay.start(master.WORKERS.keys())

    def _give_place(self, master: Arbiter, worker: GuardWorker) -> None:
        worker.place = self.workers.free_place(other.place for other in master.WORKERS.values())

    def _forked(self, _master: Arbiter, worker: GuardWorker) -> None:
        watchdog.die_with_parent()
        self.workers.begin(worker.place)

    def load(self) -> Build:
        try:
            with watchdog.threads_leave_abort_to_main():
                return load(self.settings, self.workers, self.log)
        except Refusal as refusal:
            raise AppImportError(_words(refusal)) from None  # gunicorn prints it
        except (Exception, SystemExit) as error:
            logs.write("crashed", exception=type(error).__name__, message=str(error))
            raise RuntimeError("OptiLLM did not start") from None


def _words(refusal: Refusal) -> str:
    return f"optillm-guard: refused to start: {refusal}"


def main(argv: list[str]) -> int:
    """Serve until SIGTERM, and return the exit code: 78 when the service must not start.

    argparse exits with 2 for wrong flags.
    """
    manager = watchdog.manager()
    try:
        settings = parse(argv)
        check(settings)
    except Refusal as refusal:
        print(_words(refusal), file=sys.stderr, flush=True)
        if manager is not None:
            manager.notify(f"STATUS={_words(refusal)}")
        return EXIT_CONFIG
    log = logs.ServiceLog()
    master = os.getpid()
    try:
        _Service(settings, manager, log).run()
    except SystemExit as stop:
        if os.getpid() != master:
            raise  # this is a worker, forked in run(): gunicorn's master must get its exit code
        return EXIT_CONFIG if stop.code == Arbiter.APP_LOAD_ERROR else int(stop.code or 0)
    return 0
