"""Talking to systemd: READY, WATCHDOG, STATUS, and the stacks of a process that hangs.

Nothing here reports what was not seen: each notification follows an answer of this
process's own /health, asked through the same loop, thread pool and parser that serve
clients. The question comes in over a socket pair and not over the port: another process
may serve the same listening socket, and a sealed service may neither bind nor connect.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

_QUESTION = b"GET /health HTTP/1.1\r\nHost: guard\r\nConnection: close\r\n\r\n"
#: How often STATUS= is renewed where there is no watchdog; seconds.
_STATUS_INTERVAL = 5.0
#: What a hung worker gets to print its stacks; less than the unit's TimeoutAbortSec.
_STACKS_SECONDS = 3.0


@dataclass(frozen=True)
class Manager:
    """systemd, as it introduced itself in the environment. `watchdog` is seconds, 0 without one."""

    address: str
    watchdog: float

    def notify(self, *lines: str) -> None:
        """sd_notify(3). A manager that does not listen is no reason to fail."""
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.sendto("\n".join(lines).encode(), address)
        except OSError:
            pass


def manager() -> Manager | None:
    """The manager that started this process, or None.

    Its variables are taken out of the environment: gunicorn would otherwise say READY
    before OptiLLM is even imported.
    """
    address = os.environ.pop("NOTIFY_SOCKET", "")
    microseconds = os.environ.pop("WATCHDOG_USEC", "0")
    os.environ.pop("WATCHDOG_PID", None)
    return Manager(address, int(microseconds) / 1e6 if microseconds.isdigit() else 0.0) if address else None


def answers(worker: ThreadWorker, timeout: float) -> bool:
    """Whether this worker answers its own /health through its accept loop within `timeout` seconds."""
    ours, theirs = socket.socketpair()

    def accept() -> None:
        # what ThreadWorker.accept does with a connection from its listener
        worker.nr_conns += 1
        worker.enqueue_req(TConn(worker.cfg, theirs, ("127.0.0.1", 0), ("127.0.0.1", 0)))

    worker.method_queue.defer(accept)
    with ours:
        ours.settimeout(timeout)
        try:
            ours.sendall(_QUESTION)
            return b" 200 " in ours.recv(64)
        except OSError:
            return False


class Relay:
    """A pipe from the worker to gunicorn's master: with NotifyAccess=main only the master is heard."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self._read, self._write = os.pipe()

    def say(self, *lines: str) -> None:
        """Called in the worker. Short enough to be written in one piece."""
        os.write(self._write, "\n".join(lines).encode()[: select.PIPE_BUF - 1] + b"\0")

    def start(self) -> None:
        """Called in the master: pass on what workers say, for as long as it lives."""
        threading.Thread(target=self._pass_on, name="relay", daemon=True).start()

    def _pass_on(self) -> None:
        rest = b""
        while data := os.read(self._read, select.PIPE_BUF):
            *whole, rest = (rest + data).split(b"\0")
            for message in whole:
                self.manager.notify(message.decode(errors="replace"))


class Watch(threading.Thread):
    """Tells systemd that the worker is ready, alive and what it does, as long as it answers."""

    def __init__(self, relay: Relay, worker: ThreadWorker, status: Callable[[], str]) -> None:
        super().__init__(name="watch", daemon=True)
        self.relay, self.worker, self.status = relay, worker, status

    def run(self) -> None:
        interval = min(self.relay.manager.watchdog / 3 or _STATUS_INTERVAL, _STATUS_INTERVAL)
        ready: tuple[str, ...] = ("READY=1",)
        while True:
            if answers(self.worker, timeout=interval):
                self.relay.say(*ready, "WATCHDOG=1", f"STATUS={self.status()}")
                if ready:
                    ready = ()
            time.sleep(interval if not ready else 0.05)


def stacks_on_abort() -> None:
    """SIGABRT, which systemd sends to a hung service, prints every thread's stack and ends it.

    gunicorn has its own handler, in Python: an interpreter that hangs never runs it.
    """
    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    faulthandler.disable()
    faulthandler.enable(all_threads=True)


def outlive_worker_on_abort() -> None:
    """Called in the master: SIGABRT ends it only after its worker.

    systemd sends SIGABRT to every process of a hung service at once. The worker dies with its
    master; a master that went first would cut the stacks off that the worker is printing.
    """

    def wait(*_: object) -> None:
        deadline = time.monotonic() + _STACKS_SECONDS
        with contextlib.suppress(ChildProcessError):  # there is no worker
            # WNOWAIT: gunicorn reaps it, should it come to that
            while time.monotonic() < deadline and not os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                time.sleep(0.02)
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGABRT)

    signal.signal(signal.SIGABRT, wait)


def die_with_parent() -> None:
    """SIGKILL when gunicorn's master is gone: systemd would wait for a worker that nobody can reach."""
    prctl: Any = ctypes.CDLL(None).prctl
    prctl(1, signal.SIGKILL)
