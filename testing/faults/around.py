"""Faults of what is around the service: LiteLLM as an upstream, its routing, the machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import yaml

from optictl.proof.standin import Reply
from testing.faults.bench import LITELLM, Bench
from testing.faults.fault import Fault, Step, put, sh
from testing.host import ETC

# upstream


def answers(status: int, body: Any = None, delay: float = 0) -> Step:
    """LiteLLM answers everything so."""
    reply = Reply(
        status,
        {"error": {"message": "no", "code": str(status)}} if body is None else body,
        delay=delay,
    )

    def step(b: Bench) -> None:
        b.upstream.misbehave = lambda _seen: reply

    return step


def behave(b: Bench) -> None:
    b.upstream.misbehave = None
    b.upstream.skew = 0


def _upstream(name: str, breaks: Step, says: str, mends: Step = behave) -> Fault:
    # a connection that is still open may serve one more request
    unsteady = ("curl /v1/models", "LiteLLM /health")
    return Fault(
        "upstream",
        name,
        "upstream.base-model",
        breaks,
        outside=mends,
        says=says,
        typed="",
        unsteady=unsteady,
    )


def _skewed(b: Bench) -> None:
    b.upstream.skew = 3600


UPSTREAM = [
    _upstream("down", lambda b: b.upstream.stop(), "start LiteLLM", lambda b: b.upstream.start()),
    _upstream(
        "slow", lambda b: setattr(b.upstream, "misbehave", lambda _: time.sleep(8)), "LiteLLM"
    ),
    _upstream("401", answers(401), "write OPENAI_API_KEY=<a key that LiteLLM accepts>"),
    _upstream("429", answers(429), "limit"),
    _upstream("500", answers(500), "LiteLLM's log"),
    _upstream("no JSON", answers(200, b"<html>hello</html>"), "upstream.base_url"),
    _upstream(
        "base model missing",
        answers(200, {"object": "list", "data": [{"id": "other"}]}),
        "add an entry with model_name: jerry-xl",
    ),
    Fault(
        "upstream",
        "plain HTTP where TLS was configured",
        "upstream.base-model",
        lambda b: (
            b.sh(f"sed -i 's,http://127,https://127,' {ETC}/optictl.yaml"),
            b.optictl("install", "--force", "--yes", check=False),
        ),
        outside=lambda b: b.configure(),
        says="write http://",
        typed="optictl install",
    ),
]


# routing


def litellm(change: Callable[[dict[str, Any]], object]) -> Step:
    """Change LiteLLM's configuration."""

    def step(b: Bench) -> None:
        data = b.litellm_configuration
        change(data)
        put(f"{LITELLM}/litellm.yaml", yaml.safe_dump(data), 0o644)(b)

    return step


def _entry(data: dict[str, Any], name: str) -> dict[str, Any]:
    return next(e for e in data["model_list"] if e["model_name"] == name)


def _another(name: str, target: str) -> Callable[[dict[str, Any]], object]:
    def change(data: dict[str, Any]) -> None:
        like = _entry(data, "moa-jerry-xl")
        data["model_list"].append(
            {"model_name": name, "litellm_params": {**like["litellm_params"], "model": target}}
        )

    return change


def _routing(name: str, id: str, change: Callable[[dict[str, Any]], object], says: str) -> Fault:
    return Fault(
        "routing", name, id, litellm(change), outside=litellm(lambda _: None), says=says, typed=""
    )


def _loop(data: dict[str, Any]) -> None:
    data["router_settings"] = {"fallbacks": [{"jerry-xl": ["moa-jerry-xl"]}]}


def _parameter(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda data: _entry(data, "moa-jerry-xl")["litellm_params"].update({name: value})


ROUTING = [
    _routing(
        "a fallback of the base model leads back",
        "routing.no-loop",
        _loop,
        "let jerry-xl lead to a real model only",
    ),
    _routing(
        "the base model leads to OptiLLM",
        "routing.no-loop",
        lambda d: _entry(d, "jerry-xl").update(
            litellm_params=dict(
                _entry(d, "moa-jerry-xl")["litellm_params"], model="openai/moa-jerry-xl"
            )
        ),
        "let jerry-xl lead to a real model only",
    ),
    _routing(
        "a name without a strategy",
        "routing.prefixed",
        _another("plain", "openai/jerry-xl"),
        "use a name such as moa-jerry-xl",
    ),
    _routing(
        "a strategy that is not enabled",
        "routing.enabled",
        _another("mcts-jerry-xl", "openai/mcts-jerry-xl"),
        "use an enabled strategy",
    ),
    _routing(
        "no entry serves the base model",
        "routing.base-served",
        lambda d: d["model_list"].remove(_entry(d, "jerry-xl")),
        "add an entry for jerry-xl",
    ),
    _routing("retries", "routing.retries", _parameter("num_retries", 2), "write num_retries: 0"),
    _routing(
        "a timeout below OptiLLM's own",
        "routing.retries",
        _parameter("timeout", 10),
        "write timeout: 60 or more",
    ),
    _routing(
        "a key that begins with sk-",
        "routing.key",
        _parameter("api_key", "sk-0123456789abcdefghijklmnop"),
        "write api_key: os.environ/",
    ),
    Fault(
        "routing",
        "LiteLLM's configuration is no YAML",
        "routing.no-loop",
        put(f"{LITELLM}/litellm.yaml", "model_list: [", 0o644),
        outside=litellm(lambda _: None),
        says="edit",
        typed="",
    ),
]


# clock and journal

HOST = [
    Fault(
        "host", "clock skew", "host.clock", _skewed, outside=behave, says="set the clock", typed=""
    ),
    Fault(
        "host",
        "full journal",
        "host.journal",
        sh(
            "id=$(cat /etc/machine-id); d=/var/log/journal/$id; mount -t tmpfs -o size=24M tmpfs $d"
            " && (dd if=/dev/zero of=$d/system@$id-0000000000000001-0000000000000001.journal "
            "bs=64k; true)"
        ),
        after=sh("umount --lazy /var/log/journal/* && systemctl restart systemd-journald"),
    ),
]
