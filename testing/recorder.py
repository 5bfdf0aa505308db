"""A forwarder in front of a model server: it records what is asked, and what comes back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from optictl.proof.standin import Reply, Seen, StandIn


@dataclass(frozen=True)
class Recorded:
    """A chat completion: the request as it was forwarded, and the whole answer."""

    body: dict[str, Any]
    answer: dict[str, Any]

    @property
    def texts(self) -> list[str]:
        """The text of each choice."""
        return [choice["message"]["content"] or "" for choice in self.answer["choices"]]

    @property
    def finishes(self) -> list[str]:
        """Why each choice ended."""
        return [choice["finish_reason"] for choice in self.answer["choices"]]


@dataclass
class Recorder:
    """A forwarder to the server `url` (with /v1). `most_tokens` limits every completion."""

    url: str
    most_tokens: int
    completions: list[Recorded] = field(default_factory=list)

    def forward(self, seen: Seen) -> Reply:
        """The server's answer to a request."""
        url = self.url.removesuffix("/v1") + seen.path
        body = seen.body
        if body is None:
            answer = httpx.get(url, timeout=30)
            return Reply(answer.status_code, answer.content)
        limit = body.get("max_tokens") or self.most_tokens
        # the whole answer is recorded, and streamed afterwards
        names = body.keys() - {"stream", "stream_options"}
        body = {**{name: body[name] for name in names}, "max_tokens": min(limit, self.most_tokens)}
        answer = httpx.post(url, json=body, timeout=300)
        if answer.status_code == 200 and seen.path == "/v1/chat/completions":
            self.completions.append(Recorded(body, answer.json()))
            return Reply(body=answer.json())
        return Reply(answer.status_code, answer.content)


@contextmanager
def recording(url: str, port: int, most_tokens: int) -> Iterator[Recorder]:
    """A recorder on this port, in front of the server `url`."""
    recorder = Recorder(url, most_tokens)
    with StandIn(port=port, respond=recorder.forward).running():
        yield recorder
