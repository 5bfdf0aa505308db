"""A real LiteLLM between two stand-ins: OptiLLM's, which counts, and a model's, which may fail."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from optictl.deployment import model_names
from optictl.proof.standin import Reply, Seen, StandIn, completion
from testing import litellm_proxy, support

from .cases.case import Case, merged, parsed

_numbers = itertools.count(1)
#: Put after a question's number by OptiLLM's stand-in each time that it asks LiteLLM.
_MARK = "|"


class _V6(ThreadingHTTPServer):
    address_family = socket.AF_INET6


@dataclass
class Passes:
    """What one question brought to OptiLLM's stand-in: the models, and whether one came back."""

    names: set[str] = field(default_factory=set)
    back: set[str] = field(default_factory=set)


class CountingOptiLLM:
    """Like OptiLLM without the guard: takes the strategies off the name, asks LiteLLM for the rest.

    A request that came back is counted and refused, so that none goes round for ever.
    """

    def __init__(self, litellm_port: int) -> None:
        self.passes: defaultdict[str, Passes] = defaultdict(Passes)
        self._upstream = httpx.Client(base_url=litellm_proxy.base_url(litellm_port), timeout=30)
        self._lock = threading.Lock()
        self.standin = StandIn(respond=self._respond)
        self.port = int(self.standin.base_url.rpartition(":")[2].partition("/")[0])

    def _respond(self, seen: Seen) -> Reply | None:
        if not seen.body or not seen.path.endswith("/chat/completions"):
            return None
        question, _, marks = str(seen.body["messages"][0]["content"]).partition(_MARK)
        with self._lock:
            found = self.passes[question]
            found.names.add(seen.model)
            if marks:
                found.back.add(seen.model)
        if marks:
            return Reply(
                400,
                {
                    "error": {
                        "message": "it came back",
                        "type": "invalid_request_error",
                        "code": "400",
                    }
                },
            )
        _, base = model_names.parse(seen.model)
        body = {"model": base, "messages": [{"role": "user", "content": f"{question}{_MARK}1"}]}
        answer = self._upstream.post(
            "/chat/completions",
            json=body,
            headers={"Authorization": f"Bearer {litellm_proxy.MASTER_KEY}"},
        )
        return Reply(answer.status_code, answer.json())

    @contextmanager
    def running(self) -> Iterator[CountingOptiLLM]:
        """On every loopback address that a case spells, none of which is reachable from outside."""
        with ExitStack() as stack, self._upstream:
            stack.enter_context(self.standin.running())
            for kind, host in ((ThreadingHTTPServer, "127.0.0.2"), (_V6, "::1")):
                server = kind((host, self.port), self.standin._handler())
                server.daemon_threads = True
                threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
                stack.callback(server.server_close)
                stack.callback(server.shutdown)
            yield self


_FAILURES = {
    "down": Reply(
        500, {"error": {"message": "the model is down", "type": "server_error", "code": "500"}}
    ),
    "long": Reply(
        400,
        {
            "error": {
                "message": (
                    "This model's maximum context length is 8 tokens. "
                    "However, your messages resulted in 9 tokens."
                ),
                "type": "invalid_request_error",
                "code": "context_length_exceeded",
            }
        },
    ),
    "rude": Reply(
        400,
        {
            "error": {
                "message": (
                    "Invalid prompt: your prompt was flagged as potentially violating "
                    "our usage policy."
                ),
                "type": "invalid_request_error",
                "code": "content_policy_violation",
            }
        },
    ),
}


def real_model() -> StandIn:
    """Answers whatever it is asked for, but for the names that say how they fail."""

    def respond(seen: Seen) -> Reply | None:
        if not seen.body:
            return None
        failure = next(
            (reply for word, reply in _FAILURES.items() if seen.model.endswith(f"-{word}")), None
        )
        return failure or Reply(body=completion(seen.body))

    return StandIn(respond=respond)


@dataclass
class Site:
    """A running LiteLLM that serves many cases, and what is around it."""

    litellm: litellm_proxy.LiteLLM
    optillm: CountingOptiLLM
    addresses: Mapping[str, str]

    def ask(self, model: str, expected: Passes) -> Passes:
        """Ask for a model until all has arrived that was expected: LiteLLM draws one of four."""
        found = Passes()
        for attempt in range(60):
            question = f"question {next(_numbers)}"
            self.litellm.ask(model, question)
            deadline = time.monotonic() + (0.5 if attempt else 3)  # mirrors ask on their own time
            while True:
                seen = self.optillm.passes[question]
                found = Passes(found.names | seen.names, found.back | seen.back)
                if found == expected or time.monotonic() > deadline:
                    break
                time.sleep(0.02)
            if found == expected:
                break
        return found


@contextmanager
def running(program: Path, cases: Sequence[Case]) -> Iterator[Site]:
    """One LiteLLM with all these cases in its configuration."""
    port = support.free_port()
    optillm = CountingOptiLLM(port)
    with ExitStack() as stack:
        stack.enter_context(optillm.running())
        real = stack.enter_context(real_model().running())
        directory = stack.enter_context(support.open_directory())
        addresses = {
            "OPTILLM": litellm_proxy.base_url(optillm.port),
            "LITELLM": litellm_proxy.base_url(port),
            "REAL": real.base_url,
            "PORT": str(optillm.port),
            "MASTER": litellm_proxy.MASTER_KEY,
        }
        settings: dict[str, Any] = {
            "general_settings": {"master_key": litellm_proxy.MASTER_KEY},
            "router_settings": {"num_retries": 0, "disable_cooldowns": True},
            "litellm_settings": {"request_timeout": 30},
        }
        whole = merged([settings, *(parsed(case.filled(case.text, addresses)) for case in cases)])
        whole["include"] = [str(directory / name) for name in whole.get("include", [])]
        for case in cases:
            for name, text in case.files.items():
                (directory / case.filled(name, addresses)).write_text(case.filled(text, addresses))
        environment = {
            n: case.filled(v, addresses) for case in cases for n, v in case.environment.items()
        }
        litellm = stack.enter_context(litellm_proxy.litellm(program, whole, port, environment))
        yield Site(litellm, optillm, addresses)
