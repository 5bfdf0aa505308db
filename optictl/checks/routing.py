"""Checks of LiteLLM's routing: no loops, no refused requests, no repeated strategies."""

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
    deployment: Deployment,
    judge: Callable[[Graph], Iterator[Fault]],
    good: str,
    needs_entries: bool = True,
) -> Iterator[Finding]:
    """The faults that `judge` finds in the configuration and in the running LiteLLM.

    `needs_entries`: without an entry that leads to OptiLLM there is nothing to judge.
    """
    from optictl.litellm.judge import grouped

    routing = deployment.litellm.routing
    graphs = [graph for graph in (routing.configured, routing.running) if graph is not None]
    reported = set()
    for graph in graphs:
        for fault in grouped(judge(graph)):
            # most skips come from the configuration only: it knows which variables have no value
            is_relevant = fault.status != "skip" or fault.always or graph is not routing.running
            if is_relevant and fault.found not in reported:
                reported.add(fault.found)
                yield Finding(
                    fault.found, fault.status, fault.remedy, fault.cause, fault=fault.headline
                )
    if routing.configured is None:
        raise Skip(f"{deployment.litellm.not_named}; {routing.live}")
    if needs_entries and not any(graph.arrivals for graph in graphs):
        raise Skip(f"0 entries lead to OptiLLM; {routing.live}")
    yield Finding(f"{good}; {routing.live}")


@check(
    "routing.no-loop",
    "No request comes back to OptiLLM",
    "base models lead to real models only, fallbacks included",
    fault="A request comes back to OptiLLM",
    requires=("config.valid",),
)
def routing_no_loop(deployment: Deployment) -> Iterator[Finding]:
    """No call of OptiLLM leads back to OptiLLM, for any requested model and after any failure.

    How: follows LiteLLM's configuration, its includes and its environment as LiteLLM's router does:
    aliases, wildcards, every deployment of a name, every kind of fallback, mirrors. It also follows
    the entries that a running LiteLLM lists at /v1/model/info. It is skipped without a
    configuration, or if a variable has no value.
    Why: a request that comes back repeats without end. The guard stops it with 421, and the client
    gets no answer.
    """
    from optictl.litellm import judge

    if unusable := deployment.litellm.problems:
        for problem in unusable:
            yield Finding(
                problem,
                "fail",
                f"edit {deployment.litellm.config_file},"
                " or name another file: --litellm-config PATH",
                fault="LiteLLM's configuration cannot be read",
            )
        return

    def problems(graph: Graph) -> Iterator[Fault]:
        yield from judge.duplicates(graph)
        yield from judge.loops(graph)

    yield from _findings(deployment, problems, "no route leads back")


@check(
    "routing.reached",
    "LiteLLM sends strategy models to OptiLLM",
    "each published name leads to the address that OptiLLM listens on",
    fault="LiteLLM does not send strategy models to OptiLLM",
    requires=("config.valid",),
    explained_by=("unit.matches",),
)
def routing_reached(deployment: Deployment) -> Iterator[Finding]:
    """At least one published name arrives, and none of them leads elsewhere.

    How: follows every published name (`optictl render litellm` prints them) to its entries. Each
    entry must use http and an address of this machine on which the socket listens: 127.0.0.1 or a
    name of it. [::1], 127.0.0.2 and addresses of the network are not. It also names entries whose
    names begin with an enabled strategy and lead to another server.
    Why: with a wrong port or address no strategy ever runs, and every other routing check has
    nothing to judge.
    """
    from optictl.litellm import judge

    routing, config = deployment.litellm.routing, deployment.config

    def missed(graph: Graph) -> Iterator[Fault]:
        return judge.reached(graph, whole=graph is not routing.running)

    names = judge.arrived(routing.configured) if routing.configured else []
    good = f"{len(names)} of {len(config.published)} published names lead to {config.url}"
    yield from _findings(deployment, missed, good, needs_entries=False)


@check(
    "routing.prefixed",
    "LiteLLM requests strategies from OptiLLM",
    "every model name sent to OptiLLM begins with a strategy",
    fault="LiteLLM sends requests without a strategy to OptiLLM",
    requires=("config.valid",),
    explained_by=("routing.no-loop",),
)
def routing_prefixed(deployment: Deployment) -> Iterator[Finding]:
    """Every model name that LiteLLM may send to OptiLLM begins with the name of a strategy.

    How: uses the graph of routing.no-loop, with the name that is really sent, without LiteLLM's
    provider prefix.
    Why: the guard answers a plain name with 400. OptiLLM without the guard passes it on, and the
    request comes back.
    """
    from optictl.litellm import judge

    yield from _findings(deployment, judge.unprefixed, "every name has a strategy prefix")


@check(
    "routing.enabled",
    "LiteLLM requests enabled strategies only",
    "every model name sent to OptiLLM names an enabled strategy",
    fault="LiteLLM requests a strategy that is not enabled",
    requires=("config.valid",),
)
def routing_enabled(deployment: Deployment) -> Iterator[Finding]:
    """Every strategy that LiteLLM may request is listed in `strategies`.

    How: uses the graph of routing.no-loop, and reads model names as OptiLLM does.
    Why: the guard answers a request for another strategy with 400, so the published model never
    works.
    """
    from optictl.litellm import judge

    yield from _findings(deployment, judge.not_enabled, "every requested strategy is enabled")


@check(
    "routing.base-served",
    "Every base model leads to a real model",
    "each leads to a server other than OptiLLM",
    fault="No server answers for a base model",
    requires=("config.valid",),
    explained_by=("routing.no-loop",),
)
def routing_base_served(deployment: Deployment) -> Iterator[Finding]:
    """LiteLLM has an entry for every base model, and requests no other base model from OptiLLM.

    How: uses the graph of routing.no-loop, without fallbacks.
    Why: without an entry, every upstream call of every strategy fails.
    """
    from optictl.litellm import judge

    def unserved(graph: Graph) -> Iterator[Fault]:
        return judge.unserved(graph, whole=graph is not deployment.litellm.routing.running)

    bases = ", ".join(deployment.config.base_models)
    yield from _findings(deployment, unserved, f"{bases} served", needs_entries=False)


@check(
    "routing.apis",
    "Clients can use every API of a strategy model",
    "entries that lead to OptiLLM have model: custom_openai/NAME",
    fault="Some APIs of LiteLLM do not work for a strategy model",
    requires=("config.valid",),
)
def routing_apis(deployment: Deployment) -> Iterator[Finding]:
    """Chat completions, responses and messages of LiteLLM work for every strategy model.

    How: reads the provider prefix of every entry that leads to OptiLLM.
    Why: OptiLLM has chat completions only. With custom_openai/, LiteLLM translates its other APIs;
    with openai/ it sends /v1/responses and /v1/messages on, and OptiLLM refuses them.
    """
    from optictl.litellm import judge

    yield from _findings(deployment, judge.apis, "LiteLLM translates every API")


@check(
    "routing.retries",
    "LiteLLM runs a strategy once for each request",
    "no retries, no timeout below timeouts.request",
    fault="LiteLLM runs a strategy more than once for a request",
    requires=("config.valid",),
)
def routing_retries(deployment: Deployment) -> Iterator[Finding]:
    """No retry and no timeout of LiteLLM makes a strategy run twice.

    How: reads num_retries, max_retries, retry policies and timeouts of every entry that leads to
    OptiLLM, and LiteLLM's defaults if a value is not set.
    Why: every retry repeats the whole strategy; one failing request made 36 upstream calls.
    """
    from optictl.litellm import judge

    yield from _findings(deployment, judge.repeats, "no retries, and the timeouts are long enough")


@check(
    "routing.key",
    "LiteLLM sends the proxy key",
    "every entry that leads to OptiLLM sends it",
    fault="LiteLLM does not send the proxy key",
    requires=("config.valid",),
    explained_by=("key.strength",),
)
def routing_key(deployment: Deployment) -> Iterator[Finding]:
    """Every entry that leads to OptiLLM sends a key that the guard accepts.

    How: compares api_key of the entry, or the key that LiteLLM uses in its place, with the proxy
    key if that is readable. A variable that is not in LiteLLM's env file is looked up in the
    environment of this command. Keys are never shown.
    Why: without the key the guard answers 401. OptiLLM would send a key that begins with sk-
    upstream.
    """
    from optictl.litellm import judge

    graph = deployment.litellm.routing.configured  # a running LiteLLM does not show its keys
    if graph is None:
        raise Skip(deployment.litellm.not_named)
    try:
        proxy_key = deployment.proxy_key
    except (MissingFact, PermissionError):
        proxy_key = None
    for fault in judge.grouped(judge.keys(graph, proxy_key, deployment.litellm.own_environment)):
        yield Finding(fault.found, fault.status, fault.remedy, fault.cause)
    if not graph.arrivals:
        raise Skip("0 entries lead to OptiLLM")
    if proxy_key is None:
        raise Skip(
            f"LiteLLM sends a key; without {deployment.paths.proxy_key} it cannot be compared"
        )
    yield Finding("LiteLLM sends the proxy key")
