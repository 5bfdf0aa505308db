"""HTTP to services on this machine. No proxy variable counts, no redirect is followed."""

from __future__ import annotations

import json
import re
import socket
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
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


def request(method: str, url: str, *, key: str | None = None, body: Any = None, timeout: float = 5.0) -> Answer:
    """One request. The key travels in a header and stands in no message."""
    import httpx  # a tenth of a second that most commands need not pay

    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    started = time.monotonic()
    try:
        with httpx.Client(trust_env=False, timeout=timeout, verify=url.startswith("https")) as client:
            response = client.request(method, url, headers=headers, json=body)
            text = response.text
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        reason = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
        if isinstance(error, httpx.ConnectError):
            reason = f"{reason}: {urlsplit(url).netloc}"
        return Answer(0, error=reason, seconds=time.monotonic() - started)
    lowered = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, text, lowered, seconds=time.monotonic() - started)


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
