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
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from . import journal
from .workers import take_in

_QUESTION = b"GET /health HTTP/1.1\r\nHost: guard\r\nConnection: close\r\n\r\n"
#: How often STATUS= is renewed where there is no watchdog; seconds.
_STATUS_INTERVAL = 5.0
#: After so many answers of each of the others a worker that gave none hangs: fifteen seconds, as systemd itself waits.
_SILENT_ROUNDS = 3
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
    return (
        Manager(address, int(microseconds) / 1e6 if microseconds.isdigit() else 0.0)
        if address
        else None
    )


def answers(worker: ThreadWorker, timeout: float) -> bool:
    """Whether this worker answers its own /health through its accept loop within `timeout` seconds."""
    ours, theirs = socket.socketpair()
    take_in(worker, theirs)
    with ours:
        ours.settimeout(timeout)
        try:
            ours.sendall(_QUESTION)
            return b" 200 " in ours.recv(64)
        except OSError:
            return False


@dataclass(frozen=True)
class Word:
    """What a worker says of itself each time that it has answered."""

    pid: int
    state: str
    in_flight: int
    waiting: int

    def __str__(self) -> str:
        return f"{self.pid} {self.state} {self.in_flight} {self.waiting}"

    @classmethod
    def read(cls, text: str) -> Word:
        pid, state, in_flight, waiting = text.split()
        return cls(int(pid), state, int(in_flight), int(waiting))


class Relay:
    """A pipe from the workers to gunicorn's master: with NotifyAccess=main only the master is heard.

    READY follows when every worker has answered, WATCHDOG each answer. One that no longer answers
    while others do is killed, and gunicorn starts another; when none answers, systemd ends them all.
    """

    def __init__(self, manager: Manager, workers: int) -> None:
        self.manager = manager
        self._workers = workers
        self._is_ready = False
        self._words: dict[int, Word] = {}
        #: how many words of others came since a worker's own
        self._silence: dict[int, int] = {}
        self._read, self._write = os.pipe()

    def say(self, word: Word) -> None:
        """Called in the worker. Short enough to be written in one piece."""
        os.write(self._write, f"{word}\0".encode())

    def start(self, alive: Collection[int]) -> None:
        """Called in the master: pass on what workers say, as long as it lives. `alive` are the processes that are there."""
        threading.Thread(target=self._pass_on, args=(alive,), name="relay", daemon=True).start()

    def _pass_on(self, alive: Collection[int]) -> None:
        rest = b""
        while data := os.read(self._read, select.PIPE_BUF):
            *whole, rest = (rest + data).split(b"\0")
            for message in whole:
                self._hear(Word.read(message.decode()), set(alive))

    def _hear(self, word: Word, alive: set[int]) -> None:
        if word.pid not in alive:  # its last
            return
        self._words[word.pid] = word
        self._words = {pid: known for pid, known in self._words.items() if pid in alive}
        self._silence = {pid: self._silence.get(pid, 0) + 1 for pid in self._words}
        self._silence[word.pid] = 0
        self._end_silent()
        lines = ["WATCHDOG=1", f"STATUS={self._status()}"]
        if not self._is_ready and len(self._words) >= self._workers:
            self._is_ready = True
            lines.insert(0, "READY=1")
        self.manager.notify(*lines)

    def _status(self) -> str:
        words = self._words.values()
        state = "serving" if any(word.state == "serving" for word in words) else "draining"
        workers = f" with {len(words)} of {self._workers} workers" if self._workers > 1 else ""
        in_flight, waiting = (
            sum(word.in_flight for word in words),
            sum(word.waiting for word in words),
        )
        return f"{state}{workers}, {in_flight} in flight" + (
            f", {waiting} waiting" if waiting else ""
        )

    def _end_silent(self) -> None:
        """Counted in words and not in seconds: a machine that stood still must not cost a worker its life."""
        others = len(self._words) - 1
        for pid, words in self._silence.items():
            if words == _SILENT_ROUNDS * others + 1:  # it prints its stacks and dies
                journal.write("worker_hung", pid=pid)
                kill = signal.SIGABRT
            elif words > (_SILENT_ROUNDS + 1) * others + 1:
                kill = signal.SIGKILL
            else:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, kill)


class Watch(threading.Thread):
    """Tells the master that this worker is alive and what it does, as long as it answers."""

    def __init__(self, relay: Relay, worker: ThreadWorker, word: Callable[[], Word]) -> None:
        super().__init__(name="watch", daemon=True)
        self.relay, self.worker, self.word = relay, worker, word

    def run(self) -> None:
        leave_abort_to_main()
        interval = min(self.relay.manager.watchdog / 3 or _STATUS_INTERVAL, _STATUS_INTERVAL)
        has_answered = False
        while True:
            if answers(self.worker, timeout=interval):
                self.relay.say(self.word())
                has_answered = True
            time.sleep(interval if has_answered else 0.05)


def stacks_on_abort() -> None:
    """SIGABRT, which systemd sends to a hung service, prints every thread's stack and ends it.

    gunicorn has its own handler, in Python: an interpreter that hangs never runs it.
    """
    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    faulthandler.disable()
    faulthandler.enable(all_threads=True)


def leave_abort_to_main() -> None:
    """Called in every other thread of a worker: SIGABRT is for the one that accepts.

    A stopped process is continued in order to be aborted. Whichever thread came first would print the stacks, and the one
    that accepts would take in meanwhile who waits, only to drop them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGABRT})


@contextlib.contextmanager
def threads_leave_abort_to_main() -> Iterator[None]:
    """Threads that begin within the block, also those of libraries, do not take SIGABRT: they inherit the mask."""
    leave_abort_to_main()
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGABRT})


def outlive_workers_on_abort(workers: Collection[int]) -> None:
    """Called in the master: SIGABRT ends it only after its workers, whose processes these are.

    systemd sends SIGABRT to every process of a hung service at once. A worker dies with its
    master; a master that went first would cut the stacks off that the worker is printing.
    """

    def wait(*_: object) -> None:
        deadline = time.monotonic() + _STACKS_SECONDS
        for pid in list(workers):
            with contextlib.suppress(ChildProcessError):  # it is gone
                # WNOWAIT: gunicorn reaps it, should it come to that
                while time.monotonic() < deadline and not os.waitid(
                    os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT
                ):
                    time.sleep(0.02)
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGABRT)

    signal.signal(signal.SIGABRT, wait)


def die_with_parent() -> None:
    """SIGKILL when gunicorn's master is gone: systemd would wait for a worker that nobody can reach."""
    prctl: Any = ctypes.CDLL(None).prctl
    prctl(1, signal.SIGKILL)
