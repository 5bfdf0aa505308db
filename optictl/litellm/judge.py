"""Problems in the routes of a LiteLLM, each with its route, the entry to change and the fix."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit

from optictl.deployment import model_names
from optictl.litellm.graph import (
    Arrival,
    Destination,
    Elsewhere,
    Graph,
    Hit,
    UnknownPrefix,
    Way,
    is_local,
    written,
)
from optictl.litellm.read import DEFAULT_RETRIES, ROW, ModelEntry, Place, Unknown
from optictl.results import Status


@dataclass(frozen=True)
class Fault:
    """A problem in a route. With the status "skip": something that cannot be determined.

    `always`: a skip that also counts if only the running LiteLLM has what causes it. `kind`: what
    is wrong, without the entry at `place`; faults of one kind become one (see `grouped`). `each`:
    the remedy for all of them, if it is not `remedy`. `headline`: what it means, if it is not what
    the faults of the check mean.
    """

    found: str
    remedy: str = ""
    cause: str = ""
    status: Status = "fail"
    always: bool = False
    kind: str = ""
    place: Place | None = None
    each: str = ""
    headline: str = ""


#: From this number on, faults of one kind are told as one.
_MANY = 4


def grouped(faults: Iterable[Fault]) -> Iterator[Fault]:
    """The faults, with many of one kind in one file as one fault."""
    groups: dict[object, list[Fault]] = {}
    for fault in faults:
        file = fault.place.file if fault.place else ""
        key = (fault.kind, fault.status, file) if fault.kind and file else object()
        groups.setdefault(key, []).append(fault)
    for group in groups.values():
        if len(group) < _MANY:
            yield from group
            continue
        first, lines = group[0], sorted({f.place.line for f in group if f.place})
        file = first.place.file if first.place else ""
        what = "entries" if file.endswith(ROW) else "lines"  # of a running LiteLLM, or of a file
        where = f"{file.removesuffix(ROW)}, {what} {lines[0]} to {lines[-1]}"
        yield replace(
            first,
            found=f"{len(group)} entries ({where}): {first.kind}",
            remedy=first.each or first.remedy,
        )


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


def duplicates(graph: Graph) -> Iterator[Fault]:
    """Keys that are twice in a mapping of the configuration."""
    for key in graph.settings.duplicates:
        yield Fault(
            f"{key.key} is twice, at {key.first} and {key.last}",
            f"remove one of the two, or merge them at {key.last}",
            "LiteLLM reads the last one only",
            "fail" if key.is_section else "warn",
            headline="LiteLLM does not read a part of its configuration",
        )


#: APIs of LiteLLM that do not reach OptiLLM, for each prefix of an entry. Source: LiteLLM 1.106.2
#: to 1.110.2, measured (`tests/integration/litellm/test_apis.py`).
APIS_LOST = {"openai": ("/v1/responses", "/v1/messages")}


def apis(graph: Graph) -> Iterator[Fault]:
    """Entries at OptiLLM's address with which some of LiteLLM's APIs do not work."""
    for entry, provider in _leading_here(graph):
        if lost := APIS_LOST.get(provider):
            model = str(entry.parameters["model"])
            name = model.removeprefix(f"{provider}/")
            yield Fault(
                f"{entry.name} ({entry.place}) does not work with {' and '.join(lost)}",
                f"at {entry.place}: write model: custom_openai/{name}",
                f"with {provider}/, LiteLLM sends these APIs on as they are, and OptiLLM has only "
                "/v1/chat/completions; with custom_openai/ it translates them",
                "warn",
                kind=f"{provider}/ does not work with {' and '.join(lost)}",
                place=entry.place,
                each="write model: custom_openai/NAME in each of them",
            )


def arrived(graph: Graph) -> list[str]:
    """The published names that LiteLLM sends to OptiLLM's socket."""
    return [name for name in graph.config.published if None in _of_published(graph, name)]


def _of_published(graph: Graph, name: str) -> list[Fault | None]:
    return [_missed(graph, name, hit, destination) for hit, destination in graph.deliveries(name)]


def reached(graph: Graph, whole: bool = True) -> Iterator[Fault]:
    """Published names that LiteLLM does not send to OptiLLM's socket.

    `whole`: the graph has every entry. A running LiteLLM lists only the entries that a key may see.
    """
    published = graph.config.published
    faults = [fault for name in published for fault in _of_published(graph, name) if fault]
    yield from faults
    yield from _strangers(graph)
    yield from _without_provider(graph)
    if whole and not arrived(graph):
        found = f"0 of {len(published)} published names lead to {graph.config.url}"
        what = ", ".join(graph.settings.uncovered)
        if what or any(fault.status == "skip" for fault in faults):
            yield Fault(f"{found}; more depends on {what}" if what else found, status="skip")
        else:
            yield Fault(
                found,
                "add the entries that optictl render litellm prints to LiteLLM's configuration",
                "no client of LiteLLM can use a strategy",
            )


def _without_provider(graph: Graph) -> Iterator[Fault]:
    """Entries at OptiLLM's address that LiteLLM ignores."""
    for entry in graph.dropped:
        address = str(entry.parameters.get("api_base") or entry.parameters.get("base_url") or "")
        if _is_near(graph, address, graph.config.listen.port):
            yield Fault(
                f"{entry.name} has no provider, and LiteLLM ignores it ({entry.place})",
                f"at {entry.place}: write model: custom_openai/{entry.parameters['model']}",
                "LiteLLM cannot know the protocol of the server",
                kind="they have no provider, and LiteLLM ignores them",
                place=entry.place,
                each="write model: custom_openai/NAME in each of them",
            )


def _is_near(graph: Graph, address: str, port: int | None = None) -> bool:
    """Whether an address is on this machine, in the broad reading, and has this port."""
    try:
        url = urlsplit(address.strip())
        return port in (None, url.port) and is_local(url.hostname or "", graph.own_names)
    except ValueError:
        return False


def _missed(graph: Graph, name: str, hit: Hit, destination: Destination) -> Fault | None:
    """Why an entry of a published name does not lead to OptiLLM's socket. None if it does."""
    place, url = hit.entry.place, graph.config.url
    if isinstance(destination, Unknown):
        return Fault(f"where {name} leads depends on {destination.variable}", status="skip")
    if isinstance(destination, UnknownPrefix):
        return Fault(
            f"where {name} leads depends on {destination.prefix}/ ({place})", status="skip"
        )
    address = graph.address(hit)
    if isinstance(destination, Arrival):
        is_right = graph.listens_at(destination.base)
        if is_right:
            return None
        if is_right is None:
            what = f"whether {destination.base} is this machine depends on its resolver ({place})"
            return Fault(what, status="skip")
    where = destination.where if isinstance(destination, Elsewhere) else address or "LiteLLM"
    # an address may hold a password
    shown = re.sub(r"//[^/@]*@", "//", address or where)
    return Fault(
        f"{name} leads to {shown}, not to {url} ({place})",
        f"at {place}: write model: custom_openai/{graph.config.published[name]} "
        f"and api_base: {url}",
        f"OptiLLM listens at {url} only",
        kind=f"they lead to {shown}, not to {url}",
        place=place,
        each=f"write api_base: {url} in each of them",
    )


def _strangers(graph: Graph) -> Iterator[Fault]:
    """Entries whose names begin with an enabled strategy, and that lead to another server."""
    published = graph.config.published
    for entry in graph.entries:
        begins = any(entry.name.startswith(f"{s}-") for s in graph.config.strategies)
        if not begins or entry.name in published or "*" in entry.name:
            continue
        for hit, destination in graph.deliveries(entry.name):
            # another port of this machine may be another deployment, with other base models
            is_near = _is_near(graph, graph.address(hit) or "")
            if isinstance(destination, Elsewhere) and hit.entry is entry and not is_near:
                yield Fault(
                    f"{entry.name} begins with a strategy, and leads to {destination.where} "
                    f"({entry.place})",
                    f"at {entry.place}: rename it, or write api_base: {graph.config.url}",
                    "its clients expect the strategy, and get another model",
                    "warn",
                    kind="their names begin with a strategy, and they lead elsewhere",
                    place=entry.place,
                    each=f"rename them, or write api_base: {graph.config.url}",
                )


def unprefixed(graph: Graph) -> Iterator[Fault]:
    """Requests that reach OptiLLM without a strategy prefix, or with another protocol or path."""
    for way, arrival in graph.arrivals:
        place = _culprit(way, arrival)
        if not arrival.is_understood:
            yield Fault(
                f"{written(way)} uses the protocol of {arrival.provider} ({place})",
                f"at {place}: write model: custom_openai/{arrival.name}",
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
        own = _Retries(entry.parameters.get("max_retries", 0), "in the entry", entry.place)
        for setting, retries in (("num_retries", _retries(graph, entry)), ("max_retries", own)):
            number = _number(retries.value)
            if isinstance(retries.value, Unknown):
                yield Fault(
                    f"{setting} of {label} depends on {retries.value.variable}", status="skip"
                )
            elif number is None:
                yield Fault(
                    f"{setting} of {label} is not a number",
                    f"at {retries.place}: write {setting}: 0",
                )
            elif number > 0:
                yield _repeated(entry, setting, retries, number)
        yield from _timeouts(graph, entry, label)


@dataclass(frozen=True)
class _Retries:
    """A number of retries, and what sets it. `place`: where to change it.

    `name`: the setting at that place, if it is not num_retries. `is_default`: nothing sets it.
    """

    value: Any
    where: str
    place: Place
    name: str = ""
    is_default: bool = False


def _repeated(entry: ModelEntry, setting: str, retries: _Retries, number: float) -> Fault:
    written_name = retries.name or setting
    how = "(optictl render litellm prints such entries)"
    return Fault(
        f"{entry.name} ({entry.place}) is tried up to {number + 1:g} times: "
        f"{setting} is {number:g} {retries.where}",
        f"at {retries.place}: write {written_name}: 0" + ("" if retries.name else f" {how}"),
        "each retry runs the strategy again",
        "warn" if retries.is_default else "fail",
        kind=f"they are tried up to {number + 1:g} times: {setting} is {number:g} {retries.where}",
        place=entry.place,
        each="" if retries.name else f"write {setting}: 0 in each of them {how}",
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
                kind=f"they give up after {seconds:g} s ({setting} {where}), but OptiLLM may work "
                f"for {limit} s",
                place=entry.place,
                each=f"write {setting}: {limit} or more in each of them, or lower timeouts.request",
            )


def keys(
    graph: Graph, proxy_key: str | None, own_environment: Mapping[str, str] = {}
) -> Iterator[Fault]:
    """Entries that send OptiLLM a key that it refuses.

    `proxy_key`: the right key. None when it cannot be read. `own_environment`: that of this
    process. It counts for a variable whose value in LiteLLM's environment is not known.
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
            yield from _own_value(label, key.variable, proxy_key, own_environment)
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


def _own_value(
    label: str, variable: str, proxy_key: str | None, own_environment: Mapping[str, str]
) -> Iterator[Fault]:
    """Judge a key of an unknown value by the variable of the same name in our environment."""
    value = own_environment.get(variable, "").strip()
    remedy = (
        "name LiteLLM's environment: --litellm-env FILE, or litellm.env in optictl.yaml; "
        f"{variable} in it must hold the proxy key"
    )
    if not value or (proxy_key is None and not value.startswith("sk-")):
        yield Fault(
            f"the key of {label} is in {variable}, whose value is not known", remedy, status="skip"
        )
    elif value != proxy_key:
        yield Fault(
            f"the key of {label} is in {variable}, which is not the proxy key in the environment "
            "of this command",
            remedy,
            "LiteLLM may have another value",
            "warn",
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


def _policy(graph: Graph, entry: ModelEntry) -> tuple[tuple[str, ...], Mapping[Any, Any]]:
    """The retry policy for an entry, and the path of its setting in router_settings."""
    policies = graph.settings.router.get("model_group_retry_policy")
    own = policies.get(entry.name) if isinstance(policies, Mapping) else None
    path = ("model_group_retry_policy", entry.name) if own else ("retry_policy",)
    policy = own or graph.settings.router.get("retry_policy")
    return path, policy if isinstance(policy, Mapping) else {}


def _retries(graph: Graph, entry: ModelEntry) -> _Retries:
    """The number of retries that LiteLLM's router makes after a failure."""
    router, library = graph.settings.router, graph.settings.library
    path, policy = _policy(graph, entry)
    allowed = {
        str(kind): number
        for kind, value in policy.items()
        if kind in RETRY_NAMES and (number := _number(value)) is not None
    }
    candidates: list[tuple[Any, str]] = [
        (entry.parameters.get("num_retries"), "in the entry"),
        (router.get("num_retries"), "in router_settings"),
        (library.get("num_retries"), "in litellm_settings"),
        (DEFAULT_RETRIES, "by default"),
    ]
    value, where = next(candidate for candidate in candidates if candidate[0] is not None)
    kind = max(allowed, key=lambda name: allowed[name], default="")
    if kind and allowed[kind] > (_number(value) or 0):
        place = graph.settings.router_places.get((*path, kind), entry.place)
        where = f"in router_settings.{path[0]} ({kind}), which overrides the entry"
        return _Retries(allowed[kind], where, place, kind)
    return _Retries(value, where, entry.place, is_default=where == "by default")


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
