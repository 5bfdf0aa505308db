"""Start the service: check, load OptiLLM, and serve with gunicorn's threaded workers.

By default there is one process with threads, because strategies wait for the network. gunicorn
takes the listening socket, drains for `--drain-timeout` seconds on SIGTERM, and replaces a dead
worker without closing the socket.
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

#: Additional threads for /health and other short requests. Running and waiting requests use twice
#: limits.max_in_flight.
SPARE_THREADS = 32
#: Threads that start with the worker. faulthandler prints at most 100 threads, and omits the oldest
#: one: the accept loop.
READY_THREADS = 80
#: Longer than the keep-alive of LiteLLM's HTTP clients: the client must close first.
KEEPALIVE_SECONDS = 75
#: Seconds to send the answers at the end of a drain.
DRAIN_GRACE = 3
_SHARED_MEMORY = "/dev/shm"  # noqa: S108


def proxy_config_path() -> Path:
    """The file that OptiLLM's proxy plugin will read. The search is the same as the plugin's."""
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


def _optillm_arguments(settings: Settings) -> list[str]:
    # sys.argv stays inside this process: /proc/PID/cmdline has the reference to the key only
    arguments = ["optillm", "--host", settings.host, "--port", str(settings.port)]
    arguments += ["--base-url", settings.base_url, "--model", settings.model]
    arguments += ["--optillm-api-key", settings.proxy_key]
    if settings.approach != "auto":  # "auto" is OptiLLM's default and not among its choices
        arguments += ["--approach", settings.approach]
    return arguments


def _release_name(directory: Path) -> str:
    """The name in release.json. In a sealed service the directory has the name `current`."""
    try:
        return str(json.loads((directory / "release.json").read_text())["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return directory.name


def load(settings: Settings, workers: Workers) -> Door:
    """Import and patch OptiLLM in this process, and return the guarded application.

    Raises:
        Refusal: OptiLLM has unknown fingerprints, or reads a model name differently.
    """
    # the garbage collector would take a tenth of the time of 2000 imports, and find nothing
    gc.disable()
    # import in the worker: without these modules, gunicorn's master has a quarter of the size
    from . import unneeded

    version = importlib.metadata.version("optillm")
    sys.argv = _optillm_arguments(settings)
    with unneeded.left_out(settings.strategies):
        import optillm.server as server

        from . import corrections, ledger, metrics, upstream
        from .door import Door

    # main() parses arguments, loads plugins and ends with app.run; gunicorn serves instead
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
                    f"OptiLLM does not read {name} as {strategy} on {base_model}: "
                    "rename the base model"
                )
    missing = sorted(set(settings.strategies) - loaded)
    journal.write(
        "loaded",
        optillm=version,
        strategies=sorted(loaded.intersection(settings.strategies)),
        missing=missing,
    )
    journal.serving(explain=missing)
    gc.freeze()  # the loaded modules stay: the collector need not scan them
    gc.enable()
    ledger.in_flight.shared = workers.marks
    return Door(server.app, settings, loaded, meter, build, workers)


class _Log(Logger):  # type: ignore[misc]
    """Send gunicorn's messages to the log as JSON lines."""

    def setup(self, cfg: Any) -> None:
        self.error_log.setLevel("WARNING")
        self.error_log.propagate = True
        self.access_log.disabled = True


class _Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker. At the end of a drain, unfinished requests get 503."""

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
            # gunicorn would keep the socket open until the last answer. The kernel would accept new
            # connections, which would wait for minutes and then be reset: refuse them at once
            for listener in self.sockets:
                listener.close()

    def handle(self, conn: Any) -> Any:
        keep = super().handle(conn)
        if keep is False:
            # gunicorn would close it in the accept loop, and wait there up to two seconds for the
            # client. A few slow clients would block all others, and the watchdog
            conn.close(graceful=True)
        return keep

    def finish_request(self, conn: Any, fs: Future[Any]) -> None:
        if not fs.cancelled() and fs.exception() is None and fs.result() is False:
            self.nr_conns -= 1  # handle() has closed it
        else:
            super().finish_request(conn, fs)

    @staticmethod
    def _close() -> None:
        from .desk import desk

        if unfinished := desk.close():
            journal.write("drain_over", unfinished=unfinished)


def _start_threads(pool: ThreadPoolExecutor, most: int) -> None:
    """Start threads of the pool in advance.

    The pool would start each thread in the accept loop, which waits for it to run. With many new
    clients at once, /health would wait for all these starts.
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
            # the worker ends the drain itself; this is the limit if it does not
            "graceful_timeout": round(self.settings.drain_timeout) + DRAIN_GRACE,
            "control_socket_disable": True,
            "logger_class": _Log,
            "proc_name": "optillm-proxy",
            # gunicorn's heartbeat changes a file: use memory if possible
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
    """Serve until SIGTERM, and return the exit code: 78 when the service must not start.

    argparse exits with 2 for wrong flags.
    """
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
            raise  # this is a worker, forked in run(): gunicorn's master must get its exit code
        return EXIT_CONFIG if stop.code == Arbiter.APP_LOAD_ERROR else int(stop.code or 0)
    return 0
