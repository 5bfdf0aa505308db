"""Starting and serving: refuse or load, then gunicorn's threaded workers.

One process with threads unless `--workers` says more: OptiLLM's strategies wait on the
network. gunicorn takes the listening socket, drains on SIGTERM for `--drain-timeout`
seconds and starts a worker that died anew without closing the socket.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import AppImportError
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import ThreadWorker

from . import GUARD_VERSION, invariants, journal, supervision
from .settings import EXIT_CONFIG, Refusal, Settings, parse
from .workers import Workers

if TYPE_CHECKING:
    from .door import Door

#: Threads beside those of requests that run or wait (twice limits.max_in_flight): /health is answered however many those are.
SPARE_THREADS = 32
#: So many threads are there from the start. Of more than a hundred, faulthandler leaves out the oldest: the one that accepts.
READY_THREADS = 80
#: Longer than the keep-alive of the HTTP clients that LiteLLM uses, so that the client closes first.
KEEPALIVE_SECONDS = 75
#: Seconds that what is answered at the end of a drain may take to be sent.
DRAIN_GRACE = 3
_SHARED_MEMORY = "/dev/shm"  # noqa: S108


def proxy_config_path() -> Path:
    """The file that OptiLLM's proxy plugin will read, found as the plugin finds it."""
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
    """Raise Refusal, with every reason in one line, unless this may start."""
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


def _optillm_arguments(settings: Settings) -> list[str]:
    # only this process sees its sys.argv: /proc/PID/cmdline keeps the reference
    arguments = ["optillm", "--host", settings.host, "--port", str(settings.port)]
    arguments += ["--base-url", settings.base_url, "--model", settings.model]
    arguments += ["--optillm-api-key", settings.proxy_key]
    if settings.approach != "auto":  # "auto" is OptiLLM's default and not among its choices
        arguments += ["--approach", settings.approach]
    return arguments


def _release_name(directory: Path) -> str:
    """By its own release.json: in a sealed service the directory is called `current`."""
    try:
        return str(json.loads((directory / "release.json").read_text())["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return directory.name


def load(settings: Settings, workers: Workers) -> Door:
    """Import and start OptiLLM in this process, corrected, and put the door in front of it.

    Raises:
        Refusal: the OptiLLM found is not one that the corrections were verified against,
            or it reads one of the model names differently.
    """
    # two thousand modules and nothing to throw away: looking for it takes a tenth of the import
    gc.disable()
    # imported here, in the worker: gunicorn's master stays a quarter of the size without them
    from . import unneeded

    version = importlib.metadata.version("optillm")
    sys.argv = _optillm_arguments(settings)
    with unneeded.left_out(settings.strategies):
        import optillm.server as server

        from . import corrections, ledger, metrics, upstream
        from .door import Door

    # main() reads the arguments, loads plugins and ends in app.run: gunicorn serves instead
    server.app.run = lambda *_args, **_options: None
    corrections.readable_arguments(server)
    server.main()
    parse_name = server.parse_combined_approach
    build = {
        "optillm": version,
        "guard": GUARD_VERSION,
        "release": _release_name(Path(__file__).resolve().parent.parent),
    }
    meter = metrics.Meter(settings.strategies, settings.base_models, build)
    client = upstream.build(settings, os.environ["OPENAI_API_KEY"].strip(), meter.call_ended)
    corrections.apply(server, settings, client, version)
    loaded = {*server.known_approaches, *server.plugin_approaches}
    for strategy in loaded.intersection(settings.strategies):
        for base_model in settings.base_models:
            name = f"{strategy}-{base_model}"
            if parse_name(name, server.known_approaches, server.plugin_approaches) != (
                "SINGLE",
                [strategy],
                base_model,
            ):
                raise Refusal(
                    f"OptiLLM does not read {name} as {strategy} on {base_model}: rename the base model"
                )
    missing = sorted(set(settings.strategies) - loaded)
    journal.write(
        "loaded",
        optillm=version,
        strategies=sorted(loaded.intersection(settings.strategies)),
        missing=missing,
    )
    journal.serving(explain=missing)
    gc.freeze()  # what is loaded now stays: the collector would look through all of it again and again
    gc.enable()
    ledger.in_flight.shared = workers.marks
    return Door(server.app, settings, loaded, meter, build, workers)


class _Log(Logger):  # type: ignore[misc]
    """gunicorn's messages go through the journal's JSON lines."""

    def setup(self, cfg: Any) -> None:
        self.error_log.setLevel("WARNING")
        self.error_log.propagate = True
        self.access_log.disabled = True


class _Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker; a drain ends with 503 for what could not be finished."""

    drain_timeout = 0.0

    def init_signals(self) -> None:
        super().init_signals()
        supervision.stacks_on_abort()

    def get_thread_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.cfg.threads, initializer=supervision.leave_abort_to_main)

    def handle_exit(self, sig: Any, frame: Any) -> None:
        if self.alive:
            timer = threading.Timer(self.drain_timeout, self._close)
            timer.daemon = True
            timer.start()
        super().handle_exit(sig, frame)

    def set_accept_enabled(self, enabled: bool) -> None:
        super().set_accept_enabled(enabled)
        if not enabled and not self.alive:
            # gunicorn keeps it open until the last answer is out: whoever connects meanwhile would be
            # let in by the kernel, wait for minutes and be reset, instead of being refused at once
            for listener in self.sockets:
                listener.close()

    def handle(self, conn: Any) -> Any:
        keep = super().handle(conn)
        if keep is False:
            # gunicorn closes in the loop that accepts, and waits there up to two seconds for the client
            # to close too: a few clients that do not would keep everybody waiting, the watchdog as well
            conn.close(graceful=True)
        return keep

    def finish_request(self, conn: Any, fs: Future[Any]) -> None:
        if not fs.cancelled() and fs.exception() is None and fs.result() is False:
            self.nr_conns -= 1  # closed above
        else:
            super().finish_request(conn, fs)

    @staticmethod
    def _close() -> None:
        from .desk import desk

        if unfinished := desk.close():
            journal.write("drain_over", unfinished=unfinished)


def _start_threads(pool: ThreadPoolExecutor, most: int) -> None:
    """Many that the pool may have, now: it starts one in the loop that accepts, which waits for it to run.

    When many clients come at once, and the threads of those before them are busy, /health would wait for all of that.
    """
    begin = threading.Event()
    for _ in range(min(most, READY_THREADS)):
        pool.submit(begin.wait)
    begin.set()


class _Service(BaseApplication):  # type: ignore[misc]
    def __init__(self, settings: Settings, manager: supervision.Manager | None) -> None:
        self.settings = settings
        self.workers = Workers(
            settings.workers, invariants.REQUEST_THREADS * settings.max_in_flight
        )
        self.relay = supervision.Relay(manager, settings.workers) if manager is not None else None
        super().__init__()

    def load_config(self) -> None:
        settings = {
            "bind": f"{self.settings.host}:{self.settings.port}",
            "workers": self.settings.workers,
            "worker_class": type(
                "Worker", (_Worker,), {"drain_timeout": self.settings.drain_timeout}
            ),
            "threads": 2 * self.settings.max_in_flight + SPARE_THREADS,
            "worker_connections": max(1024, 4 * self.settings.max_in_flight),
            "keepalive": KEEPALIVE_SECONDS,
            # the worker itself ends the drain; this is for one that does not
            "graceful_timeout": round(self.settings.drain_timeout) + DRAIN_GRACE,
            "control_socket_disable": True,
            "logger_class": _Log,
            "proc_name": "optillm-proxy",
            # the worker's heartbeat is a file's times: in memory where there is such a place
            "worker_tmp_dir": _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None,
            "when_ready": self._master_ready,
            "pre_fork": self._give_place,
            "post_fork": self._forked,
            "post_worker_init": self._serving,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def _master_ready(self, master: Arbiter) -> None:
        supervision.outlive_workers_on_abort(master.WORKERS.keys())
        if self.relay is not None:
            self.relay.start(master.WORKERS.keys())

    def _give_place(self, master: Arbiter, worker: ThreadWorker) -> None:
        worker.place = self.workers.free_place(other.place for other in master.WORKERS.values())

    def _forked(self, _master: Arbiter, worker: ThreadWorker) -> None:
        supervision.die_with_parent()
        self.workers.begin(worker.place)

    def _serving(self, worker: ThreadWorker) -> None:
        from .desk import desk

        _start_threads(worker.tpool, self.cfg.threads)
        journal.write("serving", port=self.settings.port)
        self.workers.listen(worker)
        if self.relay is not None:

            def word() -> supervision.Word:
                return supervision.Word(
                    os.getpid(),
                    "serving" if worker.alive else "draining",
                    len(desk),
                    desk.turns.waiting,
                )

            supervision.Watch(self.relay, worker, word).start()

    def load(self) -> Door:
        try:
            with supervision.threads_leave_abort_to_main():
                return load(self.settings, self.workers)
        except Refusal as refusal:
            raise AppImportError(_words(refusal)) from None  # gunicorn prints it
        except (Exception, SystemExit) as error:
            journal.write("crashed", exception=type(error).__name__, message=str(error))
            raise RuntimeError("OptiLLM did not start") from None


def _words(refusal: Refusal) -> str:
    return f"optillm-guard: refused to start: {refusal}"


def main(argv: list[str]) -> int:
    """Serve until SIGTERM. Returns 78 when the service must not start; sys.exit(2) on wrong flags."""
    manager = supervision.manager()
    try:
        settings = parse(argv)
        check(settings)
    except Refusal as refusal:
        print(_words(refusal), file=sys.stderr, flush=True)
        if manager is not None:
            manager.notify(f"STATUS={_words(refusal)}")
        return EXIT_CONFIG
    journal.start()
    master = os.getpid()
    try:
        _Service(settings, manager).run()
    except SystemExit as stop:
        if os.getpid() != master:
            raise  # a worker was forked inside run(): gunicorn's master must see the worker's own code
        return EXIT_CONFIG if stop.code == Arbiter.APP_LOAD_ERROR else int(stop.code or 0)
    return 0
