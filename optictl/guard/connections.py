"""HTTP connections with limits: a slow client costs some memory, and never a thread.

uvicorn's protocol has no time limit for a request head or for an answer that is not read.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from . import GUARD_VERSION, logs, responses
from .metrics import Meter

#: The largest request head, and the most bytes between two parts of a body. Bytes.
MAX_HEAD_BYTES = 64 * 1024
#: What the kernel keeps of an answer that is not read, for each connection. Bytes.
_KERNEL_BYTES = 128 * 1024
#: Connections that are examined for one that has its answer already.
_EXAMINED = 100
#: Requests of a connection that wait for the answer to an earlier one.
MAX_PIPELINED = 16
#: Answers that wait for slow readers, all together. Bytes.
MAX_UNREAD_BYTES = 64 * 1024 * 1024
#: Seconds for the request of a connection that a stopping service has just accepted.
_LAST_REQUEST_SECONDS = 1.0
_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


@dataclass
class Connections:
    """The connections of a process, and their limits. Times are in seconds.

    `waiting`: connections without a complete request head. `sending`: those without a complete
    body. `unread`: those whose client does not read its answer. In each, the oldest is the first.
    """

    meter: Meter
    head_timeout: float
    read_timeout: float
    most: int
    count: int = 0
    draining: bool = False
    waiting: dict[Connection, None] = field(default_factory=dict)
    sending: dict[Connection, None] = field(default_factory=dict)
    unread: dict[Connection, None] = field(default_factory=dict)
    _closed: Counter[str] = field(default_factory=Counter)
    _log_timer: asyncio.TimerHandle | None = None

    def report_closed(self, reason: str) -> None:
        """Log closed connections, at most once a second."""
        self._closed[reason] += 1
        if self._log_timer is None:
            self._log_closed()

    def _log_closed(self) -> None:
        self._log_timer = None
        if self._closed:
            logs.write("connections_closed", **self._closed)
            self._closed.clear()
            self._log_timer = asyncio.get_running_loop().call_later(1, self._log_closed)

    def make_room(self, newest: Connection) -> None:
        """Close the connection that has waited longest when there are too many.

        A connection whose request runs is never closed.
        """
        if self.count > self.most:
            oldest = itertools.islice(self.sending, _EXAMINED)
            refused = (c for c in oldest if c.cycle.response_started)
            # the newest one waits too: it goes last
            waiting = (c for c in self.waiting if c is not newest)
            order = itertools.chain(refused, waiting, self.unread, self.sending)
            next(order, newest).abandon("too_many_connections")

    def bound_unread(self) -> None:
        """Close the oldest connections with unread answers when these need too much memory."""
        sizes = {c: c.transport.get_write_buffer_size() for c in self.unread}
        total = sum(sizes.values())
        for connection, size in sizes.items():
            if total <= MAX_UNREAD_BYTES:
                break
            total -= size
            connection.abandon("answers_unread")


class Connection(HttpToolsProtocol):  # type: ignore[misc]
    """A connection of a client. `is_own`: of this service itself, which the limit does not count.

    `_undelivered`: bytes received since the last complete head or part of a body. `_head_bytes`:
    those of the request line and the headers so far.
    """

    def __init__(self, *, connections: Connections, is_own: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self._all = connections
        self._is_own = is_own
        self._undelivered = self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._read_timer: asyncio.TimerHandle | None = None

    # the connection

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BYTES
        )
        # call pause_writing as soon as the kernel takes no more
        transport.set_write_buffer_limits(high=0)
        self._await_head(_LAST_REQUEST_SECONDS if self._all.draining else self._all.head_timeout)
        if not self._is_own:
            self._all.count += 1
            self._all.make_room(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.count -= not self._is_own
        self._forget()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self.cycle is None and self._head_timer is not None:
            # its request is on the way: refuse it, and a client would see a dropped connection
            self._await_head(_LAST_REQUEST_SECONDS)
        else:
            super().shutdown()

    def abandon(self, reason: str) -> None:
        """Close the connection at once."""
        self._forget()  # `connection_lost` follows later
        self._all.report_closed(reason)
        self.transport.abort()

    def _forget(self) -> None:
        self._stop_waiting()
        self._stop_reading()
        self._all.sending.pop(self, None)

    # the request head

    def _await_head(self, seconds: float) -> None:
        self._stop_waiting()
        self._head_timer = self.loop.call_later(seconds, self._head_too_late)
        if not self._is_own:
            self._all.waiting[self] = None

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        self._all.waiting.pop(self, None)

    def _head_too_late(self) -> None:
        self._all.waiting.pop(self, None)
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self._undelivered == 0:
            self.transport.close()  # it has sent nothing: there is no request to answer
        else:
            self._refuse(408, "read_timeout", "the request head did not arrive in time")

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._undelivered += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._undelivered > MAX_HEAD_BYTES:  # a head, a trailer or an extension of a chunk
            self._refuse_head()
        elif self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            # empty lines before a request: they ended the time limit of an idle connection
            self._await_head(self._all.head_timeout)

    def _refuse_head(self) -> None:
        self._refuse(431, "head_too_large", f"the head is larger than {MAX_HEAD_BYTES} bytes")

    def _count_head(self, size: int) -> None:
        """Count bytes of a head. One that arrives at once is never undelivered."""
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse_head()
            raise ValueError("the head is too large")  # the parser stops

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + len(": \r\n"))
        super().on_header(name, value)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0
        if self._head_timer is None:  # the next request of the connection
            self._await_head(self._all.head_timeout)

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        self._undelivered = 0
        if len(self.pipeline) >= MAX_PIPELINED:
            self.abandon("too_many_requests")
            raise ValueError("too many requests")  # the parser stops
        super().on_headers_complete()
        self._all.sending[self] = None
        if self._all.draining:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._undelivered = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._undelivered = 0
        self._all.sending.pop(self, None)
        super().on_message_complete()

    def eof_received(self) -> None:
        cycle = self.cycle
        if cycle is not None and cycle.more_body and not cycle.response_started:
            self._refuse(400, "invalid_request", "the body is incomplete")

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():
            self._refuse(400, "invalid_request", "the request is not valid HTTP")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer without the application, and close."""
        self._all.meter.refused(code)
        logs.write("refused", status=status, code=code)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # the application has no client any more
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.close()
                return
        body = responses.error_body(status, code, message)
        head = [
            b"HTTP/1.1 %d %s" % (status, _REASONS[status]),
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"x-optillm-guard: %s" % GUARD_VERSION.encode(),
            b"connection: close",
        ]
        self.transport.write(b"\r\n".join([*head, b"", body]))
        self.transport.close()

    # the answer

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or self.pipeline:
            return
        if self._all.draining:
            self.transport.close()
        elif not self._is_own:
            self._all.waiting[self] = None

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._read_timer is None:
            self._all.unread[self] = None
            self._await_reader()
        self._all.bound_unread()

    def _await_reader(self) -> None:
        size = self.transport.get_write_buffer_size()
        self._read_timer = self.loop.call_later(self._all.read_timeout, self._check_reader, size)

    def _check_reader(self, size: int) -> None:
        if self.transport.get_write_buffer_size() < size:  # it reads, slowly
            self._await_reader()
        else:
            self.abandon("answer_unread")

    def resume_writing(self) -> None:
        self._stop_reading()
        super().resume_writing()

    def _stop_reading(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None
        self._all.unread.pop(self, None)
