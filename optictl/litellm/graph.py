"""The graph: which entries LiteLLM's router finds for a name, what each is sent, and what is tried when it fails."""

from __future__ import annotations

import ipaddress
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from optictl.deployment import model_names
from optictl.deployment.config import Config
from optictl.litellm import providers
from optictl.litellm.read import Chain, ModelEntry, Place, Settings, Unknown


@dataclass(frozen=True)
class Step:
    """One station of a request's way, in words, and the entry that led there (None: it is where the way begins)."""

    text: str
    place: Place | None = None
    #: a station that somebody chose to put there (an alias, a wildcard, a fallback), not the plain entry of a model
    chosen: bool = False


Way = tuple[Step, ...]


@dataclass(frozen=True)
class Request:
    """LiteLLM is asked for a model. `origin` is the name that was asked first, `hops` the fallbacks since then.

    `outside`: it came over HTTP, and not from the router itself. `literal`: its name was an entry's `model`, and
    LiteLLM then takes every name for one, those of fallbacks too.
    """

    name: str
    origin: str
    hops: int = 0
    outside: bool = True
    literal: bool = False


@dataclass(frozen=True)
class Hit:
    """An entry that the router finds for a name: the parameters of the call, and how it was found."""

    entry: ModelEntry
    parameters: Mapping[str, Any]
    way: Way = ()


@dataclass(frozen=True)
class Arrival:
    """A request at OptiLLM's door: the name it asks for, the entry that sent it, and the base URL that it is made to."""

    name: str
    hit: Hit
    provider: str
    base: str

    @property
    def entry(self) -> ModelEntry:
        return self.hit.entry

    @property
    def is_understood(self) -> bool:
        """Whether it speaks OpenAI's chat completions, the only language that OptiLLM has."""
        return self.provider in providers.OPENAI_SHAPED

    @property
    def is_lost(self) -> bool:
        """Whether it asks for a path that OptiLLM does not serve: LiteLLM adds /chat/completions, and no /v1."""
        return self.provider == "openai" and urlsplit(self.base).path.rstrip("/") != "/v1"


@dataclass(frozen=True)
class Back:
    """LiteLLM calls itself, for this name."""

    name: str


@dataclass(frozen=True)
class Elsewhere:
    """The request leaves for another server, or ends in LiteLLM."""

    where: str


Destination = Arrival | Back | Elsewhere | Unknown


def written(way: Way) -> str:
    """`jerry-xl -> [fallback] moa-jerry-xl -> OptiLLM`"""
    return " -> ".join(step.text for step in way)


def is_local(host: str, own_names: frozenset[str]) -> bool:
    """Whether a host in a URL means this machine. `own_names` are its names and addresses, in lower case."""
    host = host.lower().rstrip(".")
    if host in own_names or host in ("localhost", "ip6-localhost") or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


def _pattern(name: str) -> re.Pattern[str]:
    # as LiteLLM builds it: not anchored at the end
    return re.compile(re.escape(name).replace(r"\*", "(.*)"))


class Graph:
    """A LiteLLM's settings around one OptiLLM entry, on the machine that has these names."""

    def __init__(
        self, settings: Settings, config: Config, own_names: frozenset[str] = frozenset()
    ) -> None:
        self.settings, self.config, self.own_names = settings, config, own_names
        #: entries that LiteLLM leaves out at start
        self.dropped = tuple(d for d in settings.entries if self._is_dropped(d))
        self.entries = tuple(d for d in settings.entries if not self._is_dropped(d))
        self._patterns = sorted(
            {d.name: _pattern(d.name) for d in self.entries if "*" in d.name}.items(),
            key=lambda item: (
                len(item[1].pattern),
                sum(item[1].pattern.count(sign) for sign in r"*+?\^$|()"),
            ),
            reverse=True,
        )
        self._named: dict[str, list[ModelEntry]] = {}
        for entry in self.entries:
            self._named.setdefault(entry.name, []).append(entry)
        self._ids = {d.id: d for d in self.entries if d.id is not None}
        self._walks: dict[Request, list[tuple[Way, Destination]]] = {}

    def _is_dropped(self, entry: ModelEntry) -> bool:
        model, named = (
            entry.parameters["model"],
            entry.parameters.get("custom_llm_provider"),
        )
        unknown = isinstance(model, Unknown) or isinstance(named, Unknown)
        return not unknown and providers.split(model, named, self.settings.own_providers) is None

    # names: what anybody may ask for

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every name that the settings or the entry know, and some for each wildcard to swallow."""
        settings, known = (
            self.settings,
            [*self.config.base_models, *self.config.published, *self.config.publish.values()],
        )
        found = [
            *known,
            *(d.name for d in self.entries),
            *settings.aliases,
            *settings.rewrites,
            *self._ids,
        ]
        found += [target for target, _ in (*settings.aliases.values(), *settings.rewrites.values())]
        found += [
            name for chains in settings.chains for c in chains for name in (c.group, *c.targets)
        ]
        found += [m for d in self.entries if isinstance(m := d.parameters["model"], str)]
        found += [
            name.replace("*", part) for name, _ in self._patterns for part in (*known, "any-model")
        ]
        return tuple(dict.fromkeys(name for name in found if "*" not in name))

    # the router: a name -> entries

    def _entered(self, request: Request) -> tuple[Request, Way] | None:
        """A request from outside as the router gets it; None: LiteLLM refuses its name before that."""
        name = request.name
        way: Way = ()
        if self.settings.only_model:
            name, place = self.settings.only_model
            way = (*way, Step(f"[completion_model] {name}", place, chosen=True))
        if name in self.settings.rewrites:
            name, place = self.settings.rewrites[name]
            way = (*way, Step(f"[alias] {name}", place, chosen=True))
        known = (
            name in self._named
            or name in self._ids
            or name in self.settings.aliases
            or bool(self._patterns)
        )
        if not known and not self._by_model(name):
            return None
        return Request(name, name, outside=False, literal=not known), way

    def _by_model(self, model: str) -> list[ModelEntry]:
        return [d for d in self.entries if d.parameters["model"] == model]

    def hits(self, request: Request) -> list[Hit]:
        """The entries that the router finds for a request."""
        name = request.name
        way: Way = ()
        if request.literal:
            return [_hit(entry, way) for entry in self._by_model(name)]
        if name not in self._named and name in self._ids:
            return [_hit(self._ids[name], way)]
        if name in self.settings.aliases:
            name, place = self.settings.aliases[name]
            way = (Step(f"[alias] {name}", place, chosen=True),)
        if name not in self._named and (found := self._matched(name)):
            return [replace(hit, way=(*way, *hit.way)) for hit in found]
        named = self._named.get(name) or self._by_model(name)
        if not named and (default := self._default()):
            label, target = default
            named, way = (
                self._named.get(target, []),
                (*way, Step(f"[{label.label}] {target}", label.place, chosen=True)),
            )
        return [_hit(entry, way) for entry in named]

    def _matched(self, name: str) -> list[Hit]:
        """The entries of the most specific wildcard that takes a name, each with the model's `*` filled in."""
        provider = providers.provider_of(name)
        for asked in (name, f"{provider}/{name}"):
            for pattern, compiled in self._patterns:
                if match := compiled.match(asked):
                    return [self._filled(d, pattern, match) for d in self._named[pattern]]
        return []

    def _filled(self, entry: ModelEntry, pattern: str, match: re.Match[str]) -> Hit:
        model = entry.parameters["model"]
        if isinstance(model, str) and "*" in model:
            parts = match.groups()
            model = match.string if len(parts) > model.count("*") else _fill(model, parts)
        step = Step(f"[wildcard {pattern}]", entry.place, chosen=True)
        return Hit(entry, {**entry.parameters, "model": model}, (step,))

    # fallbacks

    def _chain(self, chains: tuple[Chain, ...], request: Request) -> Chain | None:
        """The chain of one kind for a failed request: its own, else its origin's, else the one for any model."""
        for group in (request.name, request.origin):
            own = next((c for c in chains if c.group == group), None) or next(
                (
                    c
                    for c in reversed(chains)
                    if c.group != "*" and _same_but_for_provider(group, c.group)
                ),
                None,
            )
            if own:
                return own
        return next((c for c in reversed(chains) if c.group == "*"), None)

    def _default(self) -> tuple[Chain, str] | None:
        """What LiteLLM takes for a name that has no entry."""
        chain = next(
            (c for chains in self.settings.chains[:1] for c in chains if c.group == "*"), None
        )
        return (chain, chain.targets[0]) if chain and chain.targets else None

    def _next(self, request: Request) -> Iterator[tuple[Step, Request]]:
        if request.hops >= self.settings.max_fallbacks:
            return
        for chains in self.settings.chains:
            chain = self._chain(chains, request)
            for target in chain.targets if chain else ():
                step = (
                    Step(f"[{chain.label}] {target}", chain.place, chosen=True)
                    if chain
                    else Step(target)
                )
                yield step, replace(request, name=target, hops=request.hops + 1)

    # an entry -> where its calls go

    def destinations(self, hit: Hit) -> Iterator[tuple[Way, Destination]]:
        """Where an entry's calls go: its own, and those of fallbacks that the entry itself names."""
        if destination := self.destination(hit):
            yield (), destination
        own = hit.parameters.get("fallbacks")
        for item in own if isinstance(own, list) else ():
            extra = item if isinstance(item, dict) else {"model": item}
            named = replace(hit, parameters={**hit.parameters, **extra})
            if destination := self.destination(named):
                yield (
                    (
                        Step(
                            f"[fallback of the entry] {extra.get('model')}",
                            hit.entry.place,
                            chosen=True,
                        ),
                    ),
                    destination,
                )

    def destination(self, hit: Hit) -> Destination | None:
        """Where one call goes; None: LiteLLM does not know how to make it."""
        parameters = hit.parameters
        if parameters.get("mock_response"):
            return Elsewhere("LiteLLM itself")
        model, named = parameters["model"], parameters.get("custom_llm_provider")
        if unknown := next((v for v in (model, named) if isinstance(v, Unknown)), None):
            return unknown
        found = providers.split(model, named, self.settings.own_providers)
        if found is None:
            return None
        provider, name = found
        base = self._base(provider, parameters)
        if not isinstance(base, str):
            return base or Elsewhere(provider)
        try:
            url = urlsplit(base.strip())
            port = url.port or {"http": 80, "https": 443}.get(url.scheme)
        except ValueError:
            return Elsewhere(f"{base!r}, which is not a URL")
        if (
            url.scheme in ("http", "https")
            and url.hostname
            and is_local(url.hostname, self.own_names)
        ):
            if port == self.config.listen.port:
                return Arrival(name, hit, provider, base.strip())
            upstream = urlsplit(self.config.upstream.base_url)
            if port == (upstream.port or {"http": 80, "https": 443}[upstream.scheme]):
                return Back(name)
        return Elsewhere(url.netloc or base)

    def _base(self, provider: str, parameters: Mapping[str, Any]) -> str | Unknown | None:
        """The address that a call is made to; None: the provider's own."""
        stated = parameters.get("api_base") or parameters.get("base_url")
        if stated:
            return stated if isinstance(stated, Unknown) else str(stated)
        if provider in ("openai", "custom_openai") and (
            general := self.settings.library.get("api_base")
        ):
            return general if isinstance(general, Unknown) else str(general)
        variables = providers.OPENAI_VARIABLES.get(provider)
        if variables is None:  # a cloud: only a variable that was seen leads elsewhere
            seen = self.settings.variable(f"{provider.upper()}_API_BASE")
            return None if isinstance(seen, Unknown) else seen
        return next((value for name in variables if (value := self.settings.variable(name))), None)

    # walking

    def walk(self, start: Request) -> list[tuple[Way, Destination]]:
        """Everywhere that a request may get to before OptiLLM or another server has it, by the shortest way."""
        if start in self._walks:
            return self._walks[start]
        found: list[tuple[Way, Destination]] = []
        told: set[Any] = set()
        seen: set[Request] = set()
        queue: deque[tuple[Request, Way]] = deque([(start, (Step(start.name),))])
        while queue:
            request, way = queue.popleft()
            if request.outside:
                entered = self._entered(request)
                if entered is None:
                    continue
                request, way = entered[0], (*way, *entered[1])
            if (mark := replace(request, hops=0)) in seen:
                continue
            seen.add(mark)
            queue.extend((following, (*way, step)) for step, following in self._next(request))
            for hit in self.hits(request):
                for extra, destination in self.destinations(hit):
                    reached = (*way, *hit.way, *extra)
                    if isinstance(destination, Back):
                        step = Step(f"LiteLLM {destination.name}", hit.entry.place)
                        queue.append((_asked(destination.name), (*reached, step)))
                    if (mark := _mark(destination)) not in told:
                        told.add(mark)
                        found.append((_ended(reached, destination), destination))
                for name in _mirrors(hit):
                    step = Step(f"[mirror] {name}", hit.entry.place, chosen=True)
                    queue.append((Request(name, name, outside=False), (*way, step)))
        self._walks[start] = found
        return found

    @cached_property
    def ways(self) -> list[tuple[Way, Destination]]:
        """Everywhere that a client's request may get to at first, for every name."""
        return [pair for name in self.names for pair in self.walk(_asked(name))]

    @cached_property
    def arrivals(self) -> list[tuple[Way, Arrival]]:
        """The requests that reach OptiLLM, one way each: from clients, and from OptiLLM itself."""
        found: dict[Any, tuple[Way, Arrival]] = {}
        for way, destination in self.ways:
            if isinstance(destination, Arrival):
                mark = _mark(destination)
                if mark not in found or len(way) < len(found[mark][0]):
                    found[mark] = way, destination
        return list(found.values())

    def base_of(self, arrival: Arrival) -> str:
        """The model that OptiLLM asks LiteLLM for, by its own parser, guarded or not."""
        return model_names.parse(arrival.name, model_names.WORDS.union(self.config.strategies))[1]

    @cached_property
    def loops(self) -> list[tuple[Way, Arrival]]:
        """The ways from a base model that OptiLLM asks for back to OptiLLM."""
        found: dict[Any, tuple[Way, Arrival]] = {}
        pending = deque(
            dict.fromkeys(
                self.base_of(arrival) for _, arrival in self.arrivals if arrival.is_understood
            )
        )
        seen = set(pending)
        while pending:
            base = pending.popleft()
            for way, destination in self.walk(_asked(base)) if base else ():
                if isinstance(destination, Arrival) and destination.is_understood:
                    following = self.base_of(destination)
                    found.setdefault(
                        (base, _mark(destination)), ((*way, Step(following)), destination)
                    )
                    if following not in seen:
                        seen.add(following)
                        pending.append(following)
        return list(found.values())

    def served(self, name: str) -> list[Destination]:
        """Where a model's own entries lead, without any fallback."""
        entered = self._entered(_asked(name))
        return (
            [where for hit in self.hits(entered[0]) for _, where in self.destinations(hit)]
            if entered
            else []
        )

    def unclear(self) -> list[str]:
        """What keeps the graph from being whole: variables without a value, settings that it does not follow."""
        variables = [d.variable for _, d in self.ways if isinstance(d, Unknown)]
        return list(dict.fromkeys((*variables, *self.settings.uncovered, *self._odd())))

    def _odd(self) -> Iterator[str]:
        for entry in self.entries:
            model = entry.parameters["model"]
            if isinstance(model, str) and model.startswith("auto_router/"):
                yield f"{model} (a router of its own, {entry.place})"
            if entry.parameters.get("context_window_fallback_dict"):
                yield f"context_window_fallback_dict of {entry.name} ({entry.place})"


def _hit(entry: ModelEntry, way: Way) -> Hit:
    return Hit(entry, entry.parameters, way)


def _asked(name: str) -> Request:
    return Request(name, name)


def _fill(model: str, parts: tuple[str | Any, ...]) -> str:
    for part in parts:
        model = model.replace("*", part, 1)
    return model


def _same_but_for_provider(name: str, key: str) -> bool:
    """Whether a fallback's key means a name: with its provider in front, or without."""
    prefix, slash, rest = name.partition("/")
    if slash:
        return prefix in providers.PROVIDERS and rest == key
    return bool(provider := providers.provider_of(name)) and key == f"{provider}/{name}"


def _mirrors(hit: Hit) -> list[str]:
    """Models that LiteLLM sends a copy of a call's prompt to."""
    value = hit.parameters.get("silent_model")
    names = value if isinstance(value, list) else [value]
    return [name for name in names if isinstance(name, str)]


def _mark(destination: Destination) -> Any:
    """What makes two destinations the same."""
    if isinstance(destination, Arrival):
        return (
            destination.name,
            destination.provider,
            destination.entry.place,
            destination.entry.name,
        )
    return destination


def _ended(way: Way, destination: Destination) -> Way:
    if not isinstance(destination, Arrival):
        return way
    same = destination.name in (step.text.rpartition(" ")[2] for step in way[-2:])
    return (
        *way,
        Step("OptiLLM" if same else f"OptiLLM, as {destination.name!r}", destination.entry.place),
    )
