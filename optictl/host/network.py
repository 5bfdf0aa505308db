"""HTTP to services on this machine. No proxy variable counts, no redirect is followed."""

from __future__ import annotations

import ipaddress
import itertools
import json
import re
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from optictl.host import files


@dataclass(frozen=True)
class Response:
    """An HTTP answer, or the reason why there is none (`status` 0). `seconds` is wall time."""

    status: int
    text: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0

    @property
    def data(self) -> Any:
        """The parsed JSON, or None."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None


def request(
    method: str,
    url: str,
    *,
    key: str | None = None,
    body: Any = None,
    timeout: float = 5.0,
    headers: Mapping[str, str] = {},
) -> Response:
    """One request. The key travels in a header and stands in no message."""
    import httpx  # a tenth of a second that most commands need not pay

    sent = {**headers, **({} if key is None else {"Authorization": f"Bearer {key}"})}
    started = time.monotonic()
    try:
        with httpx.Client(
            trust_env=False, timeout=timeout, verify=url.startswith("https")
        ) as client:
            response = client.request(method, url, headers=sent, json=body)
            text = response.text
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        reason = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
        if isinstance(error, httpx.ConnectError):
            reason = f"{reason}: {urlsplit(url).netloc}"
        return Response(0, error=reason, seconds=time.monotonic() - started)
    lowered = {name.lower(): value for name, value in response.headers.items()}
    return Response(response.status_code, text, lowered, seconds=time.monotonic() - started)


def local_names() -> frozenset[str]:
    """What this machine is called, in lower case: its host name, the names of its addresses in /etc/hosts, its addresses."""
    host = socket.gethostname()
    addresses = {"127.0.0.1", "127.0.1.1", "::1", *_own_addresses()}
    names = {host, host.partition(".")[0], socket.getfqdn(host)}
    for line in (files.read(Path("/etc/hosts")) or "").splitlines():
        address, *called = line.partition("#")[0].split()[:20] or [""]
        if address.lower() in addresses or host in called:
            names.update(called)
    return frozenset(name.lower() for name in names | addresses if name)


def _own_addresses() -> set[str]:
    """The addresses of this machine's interfaces, as the kernel lists them."""
    found = set()
    tree = (files.read(Path("/proc/net/fib_trie")) or "").splitlines()
    for above, line in itertools.pairwise(tree):
        if "/32 host LOCAL" in line:
            found.add(above.split()[-1])
    for line in (files.read(Path("/proc/net/if_inet6")) or "").splitlines():
        with suppress(ValueError):
            found.add(str(ipaddress.IPv6Address(int(line.split()[0], 16))))
    return found


def is_listening(port: int) -> bool:
    """Whether a connection to this loopback port is taken."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
