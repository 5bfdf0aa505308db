"""Problems in the routes of a LiteLLM, each with its route, the entry to change and the fix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from optictl.deployment import model_names
from optictl.litellm.graph import Arrival, Graph, UnknownPrefix, Way, written
from optictl.litellm.read import DEFAULT_RETRIES, ModelEntry, Place, Unknown
from optictl.results import Status


@dataclass(frozen=True)
class Fault:
    """A problem in a route. With the status "skip": something that cannot be determined.

    `always`: a skip that also counts if only the running LiteLLM has what causes it.
    """

    found: str
    remedy: str = ""
    cause: str = ""
    status: Status = "fail"
    always: bool = False


#: The names in LiteLLM's retry policies.
RETRY_NAMES = frozenset(
    f"{kind}Retries"
    for kind in (
        "AuthenticationError",
        "BadRequestError",
        "ContentPolicyViolationError",
        "Default",
        "InternalServerError",
        "NotFoundError",
        "RateLimitError",
        "ServiceUnavailableError",
        "TimeoutError",
    )
)


def loops(graph: Graph) -> Iterator[Fault]:
    """Base models whose routes lead back to OptiLLM."""
    for way, arrival in graph.loops:
        place = _culprit(way, arrival)
        yield Fault(
            f"{written(way)} ({place})",
            f"at {place}: let {way[0].text} lead to a real model only",
            "each pass through OptiLLM asks for the base model again, without end",
        )
    yield from _unclear(graph)


def unprefixed(graph: Graph) -> Iterator[Fault]:
    """Requests that reach OptiLLM without a strategy prefix, or with another protocol or path."""
    for way, arrival in graph.arrivals:
        place = _culprit(way, arrival)
        if not arrival.is_understood:
            yield Fault(
                f"{written(way)} uses the protocol of {arrival.provider} ({place})",
                f"at {place}: write model: openai/{arrival.name}",
                "OptiLLM understands only OpenAI's chat completions",
            )
        elif arrival.is_lost:
            yield Fault(
                f"{written(way)} calls {arrival.base.rstrip('/')}/chat/completions ({place})",
                f"at {place}: write api_base: {graph.config.url}",
                "OptiLLM answers 404 on that path",
            )
    yield from _refused(graph, "prefix", "use a name such as {example}, or a real model")
    yield from _unclear(graph)


def not_enabled(graph: Graph) -> Iterator[Fault]:
    """Requests to OptiLLM for a strategy that optictl.yaml does not enable."""
    yield from _refused(
        graph,
        "strategy",
        "use an enabled strategy (such as {example}), or enable it in optictl.yaml",
    )
    yield from _unclear(graph)


def unserved(graph: Graph, whole: bool = True) -> Iterator[Fault]:
    """Base models without a real model behind them, and requests for unknown base models.

    `whole`: the graph has every entry. A running LiteLLM lists only the entries that a key may see.
    """
    yield from _refused(
        graph,
        "base model",
        "use a base model of optictl.yaml (such as {example}), or add it there",
    )
    for base in graph.config.base_models:
        servers = graph.served(base)
        if any(not isinstance(server, Arrival | Unknown | UnknownPrefix) for server in servers):
            continue
        variables = [server.variable for server in servers if isinstance(server, Unknown)]
        if variables:
            yield Fault(f"the server of {base} depends on {', '.join(variables)}", status="skip")
        elif _may_be_served(graph, base, servers):
            continue  # the names on which it depends are reported once, below
        elif not servers and graph.settings.uncovered:
            what = ", ".join(graph.settings.uncovered)
            yield Fault(f"whether a model serves {base} depends on {what}", status="skip")
        elif servers or whole:
            what = f"only OptiLLM itself serves {base}" if servers else f"nothing serves {base}"
            yield Fault(
                what, f"add an entry for {base} to LiteLLM's model_list that leads to a real model"
            )
    for dropped in graph.dropped:
        model = dropped.parameters["model"]
        yield Fault(
            f"LiteLLM ignores {dropped.name} unless it knows the provider of {model} "
            f"({dropped.place})",
            f"at {dropped.place}: write model: openai/{model}",
            "its model does not name a provider",
            "warn",
        )
    yield from _unknown_names(graph)


def _may_be_served(graph: Graph, base: str, servers: list[Any]) -> bool:
    """Whether a base model is served if LiteLLM knows a name that optictl does not know."""
    return (
        any(isinstance(server, UnknownPrefix) for server in servers)
        or any(dropped.name == base for dropped in graph.dropped)
        or bool(graph.possible_patterns(base))
    )


def repeats(graph: Graph) -> Iterator[Fault]:
    """Retries and timeouts of LiteLLM that run a strategy more than once for one request."""
    for entry, _ in _leading_here(graph):
        label = f"{entry.name} ({entry.place})"
        numbers = {
            "num_retries": _retries(graph, entry),
            "max_retries": (entry.parameters.get("max_retries", 0), "in the entry"),
        }
        for setting, (value, where) in numbers.items():
            number = _number(value)
            if isinstance(value, Unknown):
                yield Fault(f"{setting} of {label} depends on {value.variable}", status="skip")
            elif number is None:
                yield Fault(
                    f"{setting} of {label} is not a number",
                    f"at {entry.place}: write {setting}: 0",
                )
            elif number > 0:
                yield Fault(
                    f"{label} is tried up to {number + 1:g} times: {setting} is {number:g} {where}",
                    f"at {entry.place}: write {setting}: 0 (optictl render-litellm prints such "
                    "entries)",
                    "each retry runs the strategy again",
                )
        yield from _unknown_retries(graph, entry)
        yield from _timeouts(graph, entry, label)


def _unknown_retries(graph: Graph, entry: ModelEntry) -> Iterator[Fault]:
    setting, policy = _policy(graph, entry)
    for name, value in policy.items():
        if name not in RETRY_NAMES and (_number(value) or 0) > 0:
            yield Fault(
                f"optictl does not know router_settings.{setting}.{name}, which may retry "
                f"{entry.name}",
                f"remove {name}, or write {name}: 0",
                status="skip",
            )


def _timeouts(graph: Graph, entry: ModelEntry, label: str) -> Iterator[Fault]:
    limit = graph.config.timeouts.request
    for setting, (value, where) in _limits(graph, entry).items():
        seconds = _number(value)
        if isinstance(value, Unknown):
            yield Fault(f"{setting} of {label} depends on {value.variable}", status="skip")
        elif seconds is not None and 0 < seconds < limit:
            yield Fault(
                f"{label} gives up after {seconds:g} s ({setting} {where}), but OptiLLM may work "
                f"for {limit} s",
                f"at {entry.place}: write {setting}: {limit} or more, or lower timeouts.request",
                "LiteLLM retries, or uses a fallback, while the first strategy still runs",
            )


def keys(graph: Graph, proxy_key: str | None) -> Iterator[Fault]:
    """Entries that send OptiLLM a key that it refuses.

    `proxy_key`: the right key. None when it cannot be read.
    """
    for entry, provider in _leading_here(graph):
        label = f"{entry.name} ({entry.place})"
        remedy = (
            f"at {entry.place}: write api_key: os.environ/NAME, "
            "and set NAME to the proxy key in LiteLLM's environment"
        )
        key = entry.parameters.get("api_key") or graph.settings.library.get("api_key")
        if key is None or key == "":
            key = graph.settings.variable(f"{provider.removeprefix('custom_').upper()}_API_KEY")
            if key is None and provider not in ("openai", "custom_openai"):
                yield Fault(
                    f"{label} has no api_key, and optictl does not know which key LiteLLM sends "
                    f"for {provider}/",
                    remedy,
                    status="skip",
                )
                continue
        if isinstance(key, Unknown):
            yield Fault(
                f"the key of {label} is in {key.variable}, whose value is not known",
                status="skip",
            )
        elif not isinstance(key, str) or not key.strip():
            yield Fault(f"{label} sends no key", remedy, "OptiLLM answers 401")
        elif key.startswith("sk-"):
            yield Fault(
                f"{label} sends a key that begins with sk-",
                remedy,
                "OptiLLM would send it upstream instead of OPENAI_API_KEY",
            )
        elif proxy_key is not None and key.strip() != proxy_key:
            yield Fault(
                f"{label} sends a key that is not the proxy key", remedy, "OptiLLM answers 401"
            )


def _refused(
    graph: Graph, kind: Literal["prefix", "strategy", "base model"], fix: str
) -> Iterator[Fault]:
    """The requests that the guard refuses for one kind of reason."""
    config = graph.config
    example = next(iter(config.published))
    for way, arrival in graph.arrivals:
        refusal = model_names.refusal(
            arrival.name, config.strategies, config.base_models, graph.words
        )
        if refusal and refusal[0] == kind:
            place = _culprit(way, arrival)
            yield Fault(
                f"{written(way)}: {refusal[1]} ({place})",
                f"at {place}: {fix.format(example=example)}",
            )


def _unclear(graph: Graph) -> Iterator[Fault]:
    if missing := graph.unclear():
        yield Fault(
            f"depends on {', '.join(missing)}",
            "if a variable is missing, name LiteLLM's environment: --litellm-env FILE, "
            "or litellm.env in optictl.yaml",
            status="skip",
        )
    yield from _unknown_names(graph)


def _unknown_names(graph: Graph) -> Iterator[Fault]:
    for name in graph.unknown_names():
        yield Fault(
            f"optictl does not know {name}",
            "update optictl, or use a prefix that it knows: openai/ fits every server with "
            "OpenAI's protocol",
            status="skip",
            always=True,
        )


def _culprit(way: Way, arrival: Arrival) -> Place:
    """The place to change: the last alias, wildcard or fallback of the route, or the entry."""
    return next((s.place for s in reversed(way) if s.chosen and s.place), arrival.entry.place)


def _leading_here(graph: Graph) -> list[tuple[ModelEntry, str]]:
    """The entries that lead to OptiLLM, each with its provider."""
    entries: dict[Place, tuple[ModelEntry, str]] = {}
    for _, arrival in graph.arrivals:
        entries.setdefault(arrival.entry.place, (arrival.entry, arrival.provider))
    return list(entries.values())


def _number(value: Any) -> float | None:
    """The number in a value, or None. LiteLLM accepts digits in quotes too."""
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _policy(graph: Graph, entry: ModelEntry) -> tuple[str, Mapping[Any, Any]]:
    """The retry policy for an entry, and the name of its setting."""
    policies = graph.settings.router.get("model_group_retry_policy")
    own = policies.get(entry.name) if isinstance(policies, Mapping) else None
    name = "model_group_retry_policy" if own else "retry_policy"
    policy = own or graph.settings.router.get("retry_policy")
    return name, policy if isinstance(policy, Mapping) else {}


def _retries(graph: Graph, entry: ModelEntry) -> tuple[Any, str]:
    """The number of retries that LiteLLM's router makes after a failure, and the setting for it."""
    router, library = graph.settings.router, graph.settings.library
    name, policy = _policy(graph, entry)
    allowed = [
        number
        for kind, value in policy.items()
        if kind in RETRY_NAMES and (number := _number(value)) is not None
    ]
    candidates: list[tuple[Any, str]] = [
        (entry.parameters.get("num_retries"), "in the entry"),
        (router.get("num_retries"), "in router_settings"),
        (library.get("num_retries"), "in litellm_settings"),
        (DEFAULT_RETRIES, "by default"),
    ]
    plain = next(candidate for candidate in candidates if candidate[0] is not None)
    if allowed and max(allowed) > (_number(plain[0]) or 0):
        return max(allowed), f"in router_settings.{name}, which overrides the entry"
    return plain


def _limits(graph: Graph, entry: ModelEntry) -> dict[str, tuple[Any, str]]:
    """LiteLLM's `timeout` and `stream_timeout` for an entry, each with its setting. 0: none."""
    own, router, library = entry.parameters, graph.settings.router, graph.settings.library
    here, general, last = (
        "in the entry",
        "in router_settings",
        "as request_timeout in litellm_settings",
    )
    whole: list[tuple[Any, str]] = [(own.get("timeout"), here), (own.get("request_timeout"), here)]
    whole += [(library.get("request_timeout"), last), (router.get("timeout"), general)]
    stream: list[tuple[Any, str]] = [
        (own.get("stream_timeout"), here),
        (router.get("stream_timeout"), general),
    ]
    limits = {"timeout": next((c for c in whole if c[0]), (0, ""))}
    if own_stream := next((c for c in stream if c[0]), None):
        limits["stream_timeout"] = own_stream
    return limits
