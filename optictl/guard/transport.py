"""HTTP connections to LiteLLM. Another thread can close the one that a call uses.

A thread that waits for a model cannot be interrupted; its socket can be shut down. `httpcore2` is
used without the client on top of it, which would take a quarter of the CPU time of a request.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpcore2

_KEPT_ALIVE = 128
#: Seconds until an unused connection is closed. LiteLLM's server keeps them for five.
_EXPIRY = 4.0
#: The server has closed the connection before the request if it fails within this time. Seconds.
_STALE_SECONDS = 0.5


class NoResponse(Exception):
    """The upstream cannot be reached, or the connection broke. `str()`: how."""


class TooSlow(NoResponse):
    """The upstream sent nothing for too long."""


@dataclass(frozen=True)
class Reply:
    """The head of a response, and its body in parts. The names in `headers` are in lower case.

    `parts` may raise NoResponse.
    """

    status: int
    headers: Mapping[str, str]
    parts: Iterator[bytes]


class Line:
    """The connection that a call uses. Any thread may close it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stream: httpcore2.NetworkStream | None = None
        self._is_closed = False
        #: the connection has had other calls before
        self.is_reused = False

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_closed

    def take(self, stream: httpcore2.NetworkStream | None) -> None:
        """Use this connection from now on. None: none."""
        with self._lock:
            self._stream = stream
            if self._is_closed:
                self._shut_down()

    def close(self) -> None:
        """Shut down the connection: the call that waits for it ends at once."""
        with self._lock:
            self._is_closed = True
            self._shut_down()

    def _shut_down(self) -> None:
        sock = self._stream.get_extra_info("socket") if self._stream is not None else None
        if isinstance(sock, socket.socket):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class _Lines(threading.local):
    """The line of this thread's call."""

    line: Line | None = None


_this_thread = _Lines()


class _Stream(httpcore2.NetworkStream):  # type: ignore[misc]
    """A connection that tells the line of each call which uses it."""

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream
        self._user: Line | None = None

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data: bytes = self._stream.read(max_bytes, timeout)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        line = _this_thread.line
        if line is not None and line is not self._user:
            line.is_reused, self._user = self._user is not None, line
            line.take(self)
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore2.SyncBackend):  # type: ignore[misc]
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        return _Stream(super().connect_tcp(host, port, timeout, local_address, socket_options))

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        return _Stream(super().connect_unix_socket(path, timeout, socket_options))


class Transport:
    """A pool of kept-alive connections to one server. Any thread may use it.

    Proxy variables of the environment have no effect, and redirects are not followed: they could
    send prompts off this machine.

    Args:
        base_url: that of the server, with `/v1`.
        unix_socket: a path, or "" for TCP.
    """

    def __init__(self, base_url: str, unix_socket: str = "") -> None:
        self._base_url = base_url.rstrip("/")
        # parsed once: that takes a tenth of a call
        self._urls: dict[str, httpcore2.URL] = {}
        self._pool = httpcore2.ConnectionPool(
            max_connections=None,
            max_keepalive_connections=_KEPT_ALIVE,
            keepalive_expiry=_EXPIRY,
            uds=unix_socket or None,
            network_backend=_Backend(),
        )

    def _url(self, path: str) -> httpcore2.URL:
        if path not in self._urls:
            self._urls[path] = httpcore2.URL(f"{self._base_url}/{path}")
        return self._urls[path]

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        content: bytes | None,
        headers: Mapping[str, str],
        seconds: float,
        line: Line | None = None,
    ) -> Iterator[Reply]:
        """Send a request to a path below the base URL. The response is read during the block.

        Args:
            seconds: the longest wait for the next byte.
            line: gets the connection.

        Raises:
            NoResponse: also within the block, while its parts are read.
        """
        line = line or Line()
        _this_thread.line = line
        try:
            with _mapped(), ExitStack() as stack:
                response = self._begin(stack, method, path, content, headers, seconds)
                yield Reply(
                    response.status,
                    {
                        name.decode("latin-1").lower(): value.decode("latin-1")
                        for name, value in response.headers
                    },
                    response.iter_stream(),
                )
        finally:
            _this_thread.line = None
            line.take(None)

    def _begin(
        self,
        stack: ExitStack,
        method: str,
        path: str,
        content: bytes | None,
        headers: Mapping[str, str],
        seconds: float,
    ) -> httpcore2.Response:
        """The head of the response, which `stack` closes."""

        def begin() -> httpcore2.Response:
            return stack.enter_context(
                self._pool.stream(
                    method,
                    self._url(path),
                    headers=list(headers.items()),
                    content=content,
                    extensions={
                        "timeout": dict.fromkeys(("connect", "read", "write", "pool"), seconds)
                    },
                )
            )

        started, line = time.monotonic(), _this_thread.line
        try:
            return begin()
        except (httpcore2.ReadError, httpcore2.WriteError, httpcore2.RemoteProtocolError):
            # a server may close a kept-alive connection in the moment in which it is used again
            is_new = line is None or not line.is_reused or line.is_closed
            if is_new or time.monotonic() - started > _STALE_SECONDS:
                raise
        return begin()

    def send(
        self,
        method: str,
        path: str,
        content: bytes | None,
        headers: Mapping[str, str],
        seconds: float,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request: status, headers and body of the response.

        Raises:
            NoResponse: there is no whole response.
        """
        with self.stream(method, path, content, headers, seconds) as reply:
            return reply.status, reply.headers, b"".join(reply.parts)


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except httpcore2.TimeoutException as error:
        raise TooSlow(_words(error)) from None
    except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
        raise NoResponse(_words(error)) from None


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
