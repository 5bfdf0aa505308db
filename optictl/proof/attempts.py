"""Requests to a release that runs against the stand-in, and what each caused upstream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from optictl.deployment.config import Config
from optictl.guard.loops import MARK_HEADER
from optictl.host import network
from optictl.host.network import Response
from optictl.proof import evidence
from optictl.proof.promises import Exchange
from optictl.proof.standin import Reply, Seen, StandIn, completion

#: The keys of the run. Only the stand-in and the release under test know them.
PROXY_KEY, UPSTREAM_KEY = "optillm-proof-of-a-release-0123", "stand-in"
#: Seconds for one request.
TIMEOUT = 60
_CHAT = "/v1/chat/completions"
Respond = Callable[[Seen], Reply | None]


@dataclass
class Attempts:
    """The running release. `config`: as it runs. `upstream`: the stand-in."""

    config: Config
    upstream: StandIn
    _earlier: set[str] = field(default_factory=set)

    def ask(
        self,
        model: str,
        respond: Respond | None = None,
        key: str | None = PROXY_KEY,
        headers: Mapping[str, str] = {},
        **fields: Any,
    ) -> Exchange:
        """One request for a completion; `respond` scripts the stand-in meanwhile."""
        script = _Script(respond, self._earlier)
        self.upstream.respond = script
        question = {"role": "user", "content": evidence.PROMPT}
        answer = self.send({"model": model, "messages": [question], **fields}, key, headers)
        self._earlier.add(evidence.header(answer, "trace") or "")
        return script.exchange(answer)

    def send(
        self, body: Any, key: str | None = PROXY_KEY, headers: Mapping[str, str] = {}
    ) -> Response:
        """One request with this body. It does not change the script of the stand-in."""
        url = f"{self.config.url}/chat/completions"
        return network.request("POST", url, key=key, body=body, timeout=TIMEOUT, headers=headers)

    def list_models(self, respond: Respond | None = None, key: str | None = PROXY_KEY) -> Response:
        """One request for the model list."""
        self.upstream.respond = respond
        return network.request("GET", f"{self.config.url}/models", key=key, timeout=TIMEOUT)

    def loaded(self) -> list[str]:
        """The enabled strategies that OptiLLM loaded."""
        url = f"{self.config.url.removesuffix('/v1')}/guard/state"
        state = network.request("GET", url, key=PROXY_KEY, timeout=TIMEOUT).data
        names = state.get("strategies") if isinstance(state, dict) else None
        return names if isinstance(names, list) else []

    def named(self, strategy: str) -> str:
        """The model name of a strategy on the base model."""
        return f"{strategy}-{self.config.model}"


@dataclass
class _Script:
    """The answers of the stand-in during one request, and what they were.

    `earlier`: the traces of requests that have ended. Their calls may still arrive.
    """

    respond: Respond | None
    earlier: set[str]
    calls: list[Seen] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)

    def __call__(self, seen: Seen) -> Reply | None:
        if seen.path != _CHAT or seen.headers.get("authorization") != f"Bearer {UPSTREAM_KEY}":
            return None
        if seen.headers.get(MARK_HEADER) in self.earlier:
            return None
        self.calls.append(seen)
        reply = self.respond(seen) if self.respond is not None else None
        reply = reply or Reply(body=completion(seen.body or {}))
        self.replies.append(reply)
        return reply

    def exchange(self, answer: Response) -> Exchange:
        """What happened until now."""
        good = [reply.body for reply in self.replies if reply.status == 200]
        return Exchange(
            answer,
            tuple(self.calls),
            failures=len(self.replies) - len(good),
            completions=sum(len(body["choices"]) for body in good),
            prompt=sum(body["usage"]["prompt_tokens"] for body in good),
            completed=sum(body["usage"]["completion_tokens"] for body in good),
        )
