"""LiteLLM's routing: no request comes back to OptiLLM, none reaches it in a way that it refuses or that multiplies it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from optictl.checks.registry import Finding, Skip, check
from optictl.checks.site import Site

if TYPE_CHECKING:
    from optictl.litellm.graph import Graph
    from optictl.litellm.judge import Fault


def _findings(site: Site, judge: Callable[[Graph], Iterator[Fault]], good: str) -> Iterator[Finding]:
    """What a judge says of the configuration and, where it can be had, of the running LiteLLM."""
    routing = site.routing
    told = set()
    for graph in filter(None, (routing.configured, routing.running)):
        for fault in judge(graph):
            # the configuration alone tells what cannot be told: it knows which variables it needs
            if (fault.status != "skip" or graph is not routing.running) and fault.found not in told:
                told.add(fault.found)
                yield Finding(fault.found, fault.status, fault.remedy, fault.cause)
    if routing.configured is None:
        raise Skip(f"{site.unnamed_litellm}; {routing.live}")
    yield Finding(f"{good}; {routing.live}")


@check("routing.no-loop", "No request comes back to OptiLLM", "base models lead to real models only, by every fallback")
def routing_no_loop(site: Site) -> Iterator[Finding]:
    from optictl.litellm import judge

    if problems := site.litellm_problems:
        for problem in problems:
            yield Finding(problem, "fail", f"mend it: LiteLLM does not start with {site.litellm_config}")
        return
    yield from _findings(site, judge.loops, "no way leads back")


@check("routing.prefixed", "LiteLLM asks OptiLLM for strategies", "every name that reaches it begins with a strategy")
def routing_prefixed(site: Site) -> Iterator[Finding]:
    from optictl.litellm import judge

    yield from _findings(site, judge.unprefixed, "every name has a strategy prefix")


@check("routing.enabled", "LiteLLM asks for enabled strategies", "every name that reaches OptiLLM asks for one of them")
def routing_enabled(site: Site) -> Iterator[Finding]:
    from optictl.litellm import judge

    yield from _findings(site, judge.not_enabled, "every strategy asked for is enabled")


@check("routing.base-served", "A real model answers for every base model", "each leads to a server that is not OptiLLM")
def routing_base_served(site: Site) -> Iterator[Finding]:
    from optictl.litellm import judge

    yield from _findings(site, judge.unserved, f"{', '.join(site.config.base_models)} served")


@check("routing.retries", "LiteLLM runs a strategy once for each request", "no retries, no timeout below timeouts.request")
def routing_retries(site: Site) -> Iterator[Finding]:
    from optictl.litellm import judge

    yield from _findings(site, judge.repeats, "each strategy is tried once, and long enough")


@check("routing.key", "LiteLLM sends the proxy key", "every entry that leads to OptiLLM sends it, from a variable")
def routing_key(site: Site) -> Iterator[Finding]:
    from optictl.litellm import judge

    graph = site.routing.configured  # a running LiteLLM does not show its keys
    if graph is None:
        raise Skip(site.unnamed_litellm)
    try:
        proxy_key, compared = site.proxy_key, "the proxy key is sent"
    except (Skip, PermissionError):
        proxy_key, compared = None, f"a key is sent; whether it is the right one cannot be told without {site.paths.proxy_key}"
    for fault in judge.keys(graph, proxy_key):
        yield Finding(fault.found, fault.status, fault.remedy, fault.cause)
    yield Finding(compared)
