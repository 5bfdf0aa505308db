"""Notifications to systemd (READY, WATCHDOG, STATUS), and stack traces of a hung process.

Each notification follows a successful request to this process's own /health, through the same
event loop and parser as requests of clients. The request uses a socket pair instead of the port:
another process may serve the same listening socket, and a sealed service cannot connect.
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
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from . import logs

_QUESTION = b"GET /health HTTP/1.1\r\nHost: guard\r\nConnection: close\r\n\r\n"
#: Seconds between two STATUS= without a watchdog.
_STATUS_INTERVAL = 5.0
#: A worker hangs when each other worker reported this often without it: 15 s, as WatchdogSec=.
_SILENT_ROUNDS = 3
#: Seconds for a hung worker to print its stacks. Less than TimeoutAbortSec= of the unit.
_STACKS_SECONDS = 3.0


@dataclass(frozen=True)
class Manager:
    """systemd's notification socket, from the environment. `watchdog`: seconds, 0 without one."""

    address: str
    watchdog: float

    def notify(self, *lines: str) -> None:
        """Send a notification: sd_notify(3). Errors are ignored."""
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.sendto("\n".join(lines).encode(), address)
        except OSError:
            pass


def manager() -> Manager | None:
    """The manager of this process, or None.

    Removes its variables from the environment: gunicorn would send READY=1 before it imports
    OptiLLM.
    """
    address = os.environ.pop("NOTIFY_SOCKET", "")
    microseconds = os.environ.pop("WATCHDOG_USEC", "0")
    os.environ.pop("WATCHDOG_PID", None)
    return (
        Manager(address, int(microseconds) / 1e6 if microseconds.isdigit() else 0.0)
        if address
        else None
    )


Serve = Callable[[socket.socket], None]


def answers(serve: Serve, timeout: float) -> bool:
    """Whether this process answers /health within `timeout` seconds.

    `serve` serves a connection as if it came through the listening socket.
    """
    ours, theirs = socket.socketpair()
    with ours:
        ours.settimeout(timeout)
        try:
            serve(theirs)
            ours.sendall(_QUESTION)
            return b" 200 " in ours.recv(64)
        except (OSError, RuntimeError):  # RuntimeError: the event loop is closed
            return False


@dataclass(frozen=True)
class Report:
    """The report of a worker after each answer."""

    pid: int
    state: str
    in_flight: int
    waiting: int

    def __str__(self) -> str:
        return f"{self.pid} {self.state} {self.in_flight} {self.waiting}"

    @classmethod
    def read(cls, text: str) -> Report:
        pid, state, in_flight, waiting = text.split()
        return cls(int(pid), state, int(in_flight), int(waiting))


class Relay:
    """A pipe from the workers to gunicorn's master, the only process that may notify systemd.

    The master sends READY=1 when every worker has answered, and WATCHDOG=1 after each answer. It
    kills a worker that stops answering while others answer, and gunicorn starts a new one. If no
    worker answers, systemd aborts the whole service.
    """

    def __init__(self, manager: Manager, workers: int) -> None:
        self.manager = manager
        self._workers = workers
        self._is_ready = False
        self._reports: dict[int, Report] = {}
        #: worker -> number of reports of other workers since its own
        self._silence: dict[int, int] = {}
        self._read, self._write = os.pipe()

    def say(self, report: Report) -> None:
        """Send a report. Called in the worker. It is short enough for one atomic write."""
        os.write(self._write, f"{report}\0".encode())

    def start(self, alive: Collection[int]) -> None:
        """Forward the workers' reports. Called in the master. `alive`: the worker processes."""
        threading.Thread(target=self._pass_on, args=(alive,), name="relay", daemon=True).start()

    def _pass_on(self, alive: Collection[int]) -> None:
        rest = b""
        while data := os.read(self._read, select.PIPE_BUF):
            *whole, rest = (rest + data).split(b"\0")
            for message in whole:
                self._hear(Report.read(message.decode()), set(alive))

    def _hear(self, report: Report, alive: set[int]) -> None:
        if report.pid not in alive:  # the last report of a dead worker
            return
        self._reports[report.pid] = report
        self._reports = {pid: known for pid, known in self._reports.items() if pid in alive}
        self._silence = {pid: self._silence.get(pid, 0) + 1 for pid in self._reports}
        self._silence[report.pid] = 0
        self._end_silent()
        lines = ["WATCHDOG=1", f"STATUS={self._status()}"]
        if not self._is_ready and len(self._reports) >= self._workers:
            self._is_ready = True
            lines.insert(0, "READY=1")
        self.manager.notify(*lines)

    def _status(self) -> str:
        reports = self._reports.values()
        state = "serving" if any(report.state == "serving" for report in reports) else "draining"
        workers = f" with {len(reports)} of {self._workers} workers" if self._workers > 1 else ""
        in_flight, waiting = (
            sum(report.in_flight for report in reports),
            sum(report.waiting for report in reports),
        )
        return f"{state}{workers}, {in_flight} in flight" + (
            f", {waiting} waiting" if waiting else ""
        )

    def _end_silent(self) -> None:
        """Kill hung workers. Counts reports, not seconds: a suspended machine must not kill one."""
        others = len(self._reports) - 1
        for pid, reports in self._silence.items():
            if reports == _SILENT_ROUNDS * others + 1:  # it prints its stacks and dies
                logs.write("worker_hung", pid=pid)
                kill = signal.SIGABRT
            elif reports > (_SILENT_ROUNDS + 1) * others + 1:
                kill = signal.SIGKILL
            else:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, kill)


class Watch(threading.Thread):
    """Reports this worker to the master for as long as it answers."""

    def __init__(self, relay: Relay, serve: Serve, report: Callable[[], Report]) -> None:
        super().__init__(name="watch", daemon=True)
        self.relay, self.serve, self.report = relay, serve, report

    def run(self) -> None:
        leave_abort_to_main()
        interval = min(self.relay.manager.watchdog / 3 or _STATUS_INTERVAL, _STATUS_INTERVAL)
        has_answered = False
        while True:
            if answers(self.serve, timeout=interval):
                self.relay.say(self.report())
                has_answered = True
            time.sleep(interval if has_answered else 0.05)


def stacks_on_abort() -> None:
    """On SIGABRT, print the stacks of all threads and exit. systemd sends it to a hung service.

    gunicorn's own handler is in Python, and a hung interpreter never runs it.
    """
    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    faulthandler.disable()
    faulthandler.enable(all_threads=True)


def leave_abort_to_main() -> None:
    """Block SIGABRT in this thread. Every thread of a worker but the main one calls this.

    systemd continues a stopped process to abort it. If another thread took the signal and printed
    the stacks, the main thread would meanwhile accept connections and then drop them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGABRT})


@contextlib.contextmanager
def threads_leave_abort_to_main() -> Iterator[None]:
    """Threads that start within the block inherit a blocked SIGABRT, also those of libraries."""
    leave_abort_to_main()
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGABRT})


def outlive_workers_on_abort(workers: Collection[int]) -> None:
    """On SIGABRT, the master ends after its workers. `workers`: their processes.

    systemd sends SIGABRT to all processes of a hung service at once. Workers die with the master.
    If it ended first, the stacks of a worker would be cut off.
    """

    def wait(*_: object) -> None:
        deadline = time.monotonic() + _STACKS_SECONDS
        for pid in list(workers):
            with contextlib.suppress(ChildProcessError):  # it has ended
                # WNOWAIT: leave it for gunicorn to reap
                while time.monotonic() < deadline and not os.waitid(
                    os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT
                ):
                    time.sleep(0.02)
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGABRT)

    signal.signal(signal.SIGABRT, wait)


def die_with_parent() -> None:
    """Get SIGKILL when gunicorn's master dies.

    Otherwise systemd would wait for an orphan worker.
    """
    prctl: Any = ctypes.CDLL(None).prctl
    prctl(1, signal.SIGKILL)
