"""LiteLLM's routing: no request comes back to OptiLLM, none reaches it in a way that it refuses or that multiplies it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from optictl.checks.engine import Finding, Skip, check
from optictl.errors import MissingFact
from optictl.facts.deployment import Deployment

if TYPE_CHECKING:
    from optictl.litellm.graph import Graph
    from optictl.litellm.judge import Fault


def _findings(
    deployment: Deployment, judge: Callable[[Graph], Iterator[Fault]], good: str
) -> Iterator[Finding]:
    """What a judge says of the configuration and, where it can be had, of the running LiteLLM."""
    routing = deployment.routing
    told = set()
    for graph in filter(None, (routing.configured, routing.running)):
        for fault in judge(graph):
            # the configuration alone tells what cannot be told: it knows which variables it needs
            if (fault.status != "skip" or graph is not routing.running) and fault.found not in told:
                told.add(fault.found)
                yield Finding(fault.found, fault.status, fault.remedy, fault.cause)
    if routing.configured is None:
        raise Skip(f"{deployment.unnamed_litellm}; {routing.live}")
    yield Finding(f"{good}; {routing.live}")


@check(
    "routing.no-loop",
    "No request comes back to OptiLLM",
    "base models lead to real models only, by every fallback",
    fault="A request comes back to OptiLLM",
    requires=("config.valid",),
)
def routing_no_loop(deployment: Deployment) -> Iterator[Finding]:
    """Whatever a client asks for, and whatever fails meanwhile, OptiLLM is never asked again by its own call.

    How: LiteLLM's configuration, with what it includes and its environment, is followed as its router would: aliases,
    wildcards, every deployment of a name, every kind of fallback, mirrors. The entries that a running LiteLLM lists at
    /v1/model/info are followed too. Without a configuration, or where a variable has no value, it is a skip.
    Why: one request that comes back asks again without end; the guard ends it with 421, and the answer is lost.
    """
    from optictl.litellm import judge

    if problems := deployment.litellm_problems:
        for problem in problems:
            yield Finding(
                problem,
                "fail",
                f"edit {deployment.litellm_config}, or name another file: --litellm-config PATH",
            )
        return
    yield from _findings(deployment, judge.loops, "no way leads back")


@check(
    "routing.prefixed",
    "LiteLLM asks OptiLLM for strategies",
    "every name that reaches it begins with a strategy",
    fault="Requests reach OptiLLM without a strategy",
    requires=("config.valid",),
    explained_by=("routing.no-loop",),
)
def routing_prefixed(deployment: Deployment) -> Iterator[Finding]:
    """Every model name that LiteLLM may send to OptiLLM begins with a strategy's word.

    How: the graph of routing.no-loop; the name is the one that is really sent, without LiteLLM's provider prefix.
    Why: the guard answers a plain name with 400; OptiLLM by itself passes it on, and it comes back.
    """
    from optictl.litellm import judge

    yield from _findings(deployment, judge.unprefixed, "every name has a strategy prefix")


@check(
    "routing.enabled",
    "LiteLLM asks for enabled strategies",
    "every name that reaches OptiLLM asks for one of them",
    fault="LiteLLM asks for a strategy that is not enabled",
    requires=("config.valid",),
)
def routing_enabled(deployment: Deployment) -> Iterator[Finding]:
    """Every strategy that LiteLLM may ask for is among `strategies`.

    How: the graph of routing.no-loop, and OptiLLM's own way to read a model's name.
    Why: the guard answers such a request with 400: the model is published and never works.
    """
    from optictl.litellm import judge

    yield from _findings(deployment, judge.not_enabled, "every strategy asked for is enabled")


@check(
    "routing.base-served",
    "A real model answers for every base model",
    "each leads to a server that is not OptiLLM",
    fault="A base model is answered by nobody",
    requires=("config.valid",),
    explained_by=("routing.no-loop",),
)
def routing_base_served(deployment: Deployment) -> Iterator[Finding]:
    """LiteLLM has an entry for every base model, and OptiLLM is asked for no other.

    How: the graph of routing.no-loop, without fallbacks.
    Why: every call of every strategy would fail.
    """
    from optictl.litellm import judge

    def unserved(graph: Graph) -> Iterator[Fault]:
        return judge.unserved(graph, whole=graph is not deployment.routing.running)

    yield from _findings(deployment, unserved, f"{', '.join(deployment.config.base_models)} served")


@check(
    "routing.retries",
    "LiteLLM runs a strategy once for each request",
    "no retries, no timeout below timeouts.request",
    fault="LiteLLM runs a strategy more than once for a request",
    requires=("config.valid",),
)
def routing_retries(deployment: Deployment) -> Iterator[Finding]:
    """No retry and no timeout of LiteLLM makes a strategy run twice.

    How: num_retries, max_retries, retry policies and timeouts of every entry that leads to OptiLLM, with the defaults
    that LiteLLM takes where nothing is said.
    Why: a try repeats a whole strategy; one failing request made 36 upstream calls.
    """
    from optictl.litellm import judge

    yield from _findings(deployment, judge.repeats, "each strategy is tried once, and long enough")


@check(
    "routing.key",
    "LiteLLM sends the proxy key",
    "every entry that leads to OptiLLM sends it",
    fault="LiteLLM does not send the proxy key",
    requires=("config.valid",),
    explained_by=("key.strength",),
)
def routing_key(deployment: Deployment) -> Iterator[Finding]:
    """Every entry that leads to OptiLLM sends a key that the guard lets in.

    How: api_key of the entry, or what LiteLLM takes in its place, beside the proxy key where that can be read. No key is
    ever quoted.
    Why: without it OptiLLM answers 401, and a key that begins with sk- would be sent upstream.
    """
    from optictl.litellm import judge

    graph = deployment.routing.configured  # a running LiteLLM does not show its keys
    if graph is None:
        raise Skip(deployment.unnamed_litellm)
    try:
        proxy_key = deployment.proxy_key
    except (MissingFact, PermissionError):
        proxy_key = None
    for fault in judge.keys(graph, proxy_key):
        yield Finding(fault.found, fault.status, fault.remedy, fault.cause)
    if proxy_key is None:
        raise Skip(
            f"a key is sent; whether it is the right one cannot be told without {deployment.paths.proxy_key}"
        )
    yield Finding("the proxy key is sent")
