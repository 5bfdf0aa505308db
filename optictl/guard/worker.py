"""gunicorn's worker: an event loop with uvicorn's server, on the sockets of the master."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn
from gunicorn.workers.base import Worker

from . import logs, watchdog
from .connections import Connection

if TYPE_CHECKING:
    from .context import GuardContext

#: Longer than the keep-alive of LiteLLM's HTTP clients: the client must close first.
KEEPALIVE_SECONDS = 75
#: Seconds to send the answers at the end of a drain.
DRAIN_GRACE = 3
_THREADS = 24
#: How long a thread may run while others wait.
_SWITCH_SECONDS = 0.0005
#: Connections that are accepted before the event loop does something else.
_ACCEPT_BATCH = 64

#: Builds the application and its state, in the event loop. The application is an ASGI callable.
Build = Callable[[], tuple["GuardContext", Any]]


class _Listener(socket.socket):
    """A socket that listens already. A sealed service may not call listen(2)."""

    def listen(self, backlog: int = 0, /) -> None:
        pass

    def accept(self) -> tuple[socket.socket, Any]:
        # another process that gets the socket shares its flags: systemd makes it blocking for one
        # without NonBlocking=, and the event loop would hang in the next call
        os.set_blocking(self.fileno(), False)
        return super().accept()


class _Server(uvicorn.Server):  # type: ignore[misc]
    """uvicorn's server. It drains for a limited time, and then answers the rest with 503.

    `on_start`: called before the first response. `on_stop`: called when a drain begins.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        context: GuardContext,
        on_start: Callable[[_Server], None],
        on_stop: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._context, self._on_start, self._on_stop = context, on_start, on_stop
        self._is_stopping = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start(self)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self._is_stopping:
            self._is_stopping = self.should_exit = True
            asyncio.get_running_loop().call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._on_stop()
        self._context.connections.draining = True
        loop = asyncio.get_running_loop()
        loop.call_later(self._context.settings.drain_timeout, self._end_drain)

    def _end_drain(self) -> None:
        if unfinished := self._context.inflight.close():
            logs.write("drain_over", unfinished=unfinished)


class GuardWorker(Worker):  # type: ignore[misc]
    """A worker of gunicorn. `place`: its number. `relay`: None without systemd."""

    place = 0
    relay: watchdog.Relay | None = None

    def init_signals(self) -> None:
        super().init_signals()
        watchdog.stacks_on_abort()

    def run(self) -> None:
        # strategies in threads take turns with the event loop: with 256 clients and CPython's
        # 5 ms, /health took 160 ms at p95, and 80 ms with this
        sys.setswitchinterval(_SWITCH_SECONDS)
        build: Build = self.wsgi
        try:
            asyncio.run(self._serve(build))
        except Exception as error:
            logs.write("crashed", exception=type(error).__name__, message=str(error))
            sys.exit(1)

    async def _serve(self, build: Build) -> None:
        # for what blocks in the application: model lists, and requests to other workers
        threads = ThreadPoolExecutor(_THREADS, initializer=watchdog.leave_abort_to_main)
        asyncio.get_running_loop().set_default_executor(threads)
        context, app = build()
        config = uvicorn.Config(
            app,
            http=functools.partial(Connection, connections=context.connections),
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_ACCEPT_BATCH,
            timeout_keep_alive=KEEPALIVE_SECONDS,
            timeout_graceful_shutdown=round(context.settings.drain_timeout) + DRAIN_GRACE,
            timeout_notify=1,
            callback_notify=self._beat,
        )
        begin = functools.partial(self._begin, config=config, context=context)
        server = _Server(config, context, begin, self._stop)
        listeners = [_Listener(fileno=os.dup(sock.fileno())) for sock in self.sockets]
        await server.serve(sockets=listeners)

    def _begin(self, server: _Server, config: uvicorn.Config, context: GuardContext) -> None:
        """Report to the master and the other workers that the server has started."""
        loop = asyncio.get_running_loop()

        def connection() -> Connection:
            return Connection(
                connections=context.connections,
                is_own=True,
                config=config,
                server_state=server.server_state,
                app_state={},
                _loop=loop,
            )

        def take_in(accepted: socket.socket) -> None:
            """Serve a connection as if it came through the listening socket. For any thread."""
            accepted.setblocking(False)
            serving = loop.connect_accepted_socket(connection, accepted)
            asyncio.run_coroutine_threadsafe(serving, loop)

        def hear(kind: str, value: str) -> None:
            loop.call_soon_threadsafe(context.breaker.hear, kind, value)

        logs.write("serving", port=context.settings.port)
        context.workers.listen(take_in, hear)
        if self.relay is not None:

            def report() -> watchdog.Report:
                state = "serving" if self.alive else "draining"
                return watchdog.Report(
                    os.getpid(), state, len(context.inflight), context.limiter.waiting
                )

            watchdog.Watch(self.relay, take_in, report).start()

    async def _beat(self) -> None:
        self.notify()
        if self.ppid != os.getppid():
            signal.raise_signal(signal.SIGTERM)

    def _stop(self) -> None:
        self.alive = False
        # uvicorn closes its copies of the listening sockets; while one is open, the kernel accepts
        # new connections, which would wait for the end of the drain and then be reset
        for listener in self.sockets:
            listener.close()
