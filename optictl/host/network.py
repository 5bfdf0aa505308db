"""HTTP requests to services on this machine, and facts about its ports and names.

Requests ignore proxy variables and do not follow redirects.
"""

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
    """An HTTP response. Without one, `status` is 0 and `error` has the reason.

    Header names are in lower case. `seconds` is the time from the call to the last byte.
    """

    status: int
    text: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0

    @property
    def data(self) -> Any:
        """The body as parsed JSON. None when it is not JSON."""
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
    """Send one request. `body` is sent as JSON. `timeout`: seconds.

    The key is sent as a bearer token. No error text contains it. No failure raises an exception.
    """
    import httpx  # takes a tenth of a second, and most commands do not need it

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
    """The names and addresses of this machine, in lower case.

    Sources: its host name, /etc/hosts, and the addresses of its interfaces.
    """
    host = socket.gethostname()
    addresses = {"127.0.0.1", "127.0.1.1", "::1", *_own_addresses()}
    names = {host, host.partition(".")[0], socket.getfqdn(host)}
    for line in (files.read(Path("/etc/hosts")) or "").splitlines():
        address, *called = line.partition("#")[0].split()[:20] or [""]
        if address.lower() in addresses or host in called:
            names.update(called)
    return frozenset(name.lower() for name in names | addresses if name)


def names_of(address: str) -> frozenset[str]:
    """The names that lead to this address of the machine, in lower case: /etc/hosts."""
    names = {"localhost"} if address == "127.0.0.1" else set()
    for line in (files.read(Path("/etc/hosts")) or "").splitlines():
        first, *called = line.partition("#")[0].split()[:20] or [""]
        if first == address:
            names.update(called)
    return frozenset(name.lower() for name in names)


def _own_addresses() -> set[str]:
    """The addresses of this machine's interfaces, as /proc/net lists them."""
    addresses = set()
    tree = (files.read(Path("/proc/net/fib_trie")) or "").splitlines()
    for above, line in itertools.pairwise(tree):
        if "/32 host LOCAL" in line:
            addresses.add(above.split()[-1])
    for line in (files.read(Path("/proc/net/if_inet6")) or "").splitlines():
        with suppress(ValueError):
            addresses.add(str(ipaddress.IPv6Address(int(line.split()[0], 16))))
    return addresses


def is_listening(port: int) -> bool:
    """Whether something accepts connections on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A port of 127.0.0.1 that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
