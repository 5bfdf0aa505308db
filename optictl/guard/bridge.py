"""`python -I RELEASE/guard/bridge.py PORT SECONDS`: forward connections to another port.

systemd passes the listening socket (sd_listen_fds(3)). optictl uses the bridge to replace a
hand-made service: a new process already serves on PORT while the final service starts on the
socket. Clients do not wait. On SIGTERM the bridge accepts no more connections, and open ones
continue for at most SECONDS.

It uses threads instead of an event loop, because it must accept at once and runs for seconds only.
"""

from __future__ import annotations

import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress

#: The first descriptor that systemd passes.
_FIRST = 3
_HOST = "127.0.0.1"
_BLOCK = 1 << 16
#: Seconds between two checks for SIGTERM.
_PAUSE = 0.2


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copy until the source ends, then shut down the target."""
    with suppress(OSError):
        while data := source.recv(_BLOCK):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _connect(near: socket.socket, port: int) -> None:
    """Connect to the port, and copy both ways until both directions have ended."""
    with near, suppress(OSError), socket.create_connection((_HOST, port)) as far:
        back = threading.Thread(target=_copy, args=(far, near), daemon=True)
        back.start()
        _copy(near, far)
        back.join()


def serve(listener: socket.socket, port: int, seconds: float, ended: threading.Event) -> None:
    """Forward connections until `ended` is set, then wait for open ones. `seconds`: how long."""
    threads: list[threading.Thread] = []
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while not ended.is_set():
        if not poll.poll(_PAUSE * 1000):
            continue
        try:
            near, _ = listener.accept()
        except (BlockingIOError, InterruptedError):  # the service accepted it first
            continue
        near.setblocking(True)
        thread = threading.Thread(target=_connect, args=(near, port), daemon=True)
        threads = [*(one for one in threads if one.is_alive()), thread]
        thread.start()
    listener.close()
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))


def main(port: int, seconds: float) -> None:
    """Serve the socket that systemd passed."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    listener = socket.socket(fileno=_FIRST)
    # the service shares the socket and may set this at any time
    listener.setblocking(False)
    serve(listener, port, seconds, ended)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
