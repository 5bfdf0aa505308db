"""The routing graph: the entries that LiteLLM's router finds for a name, and their fallbacks."""

from __future__ import annotations

import ipaddress
import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from optictl.deployment import model_names
from optictl.deployment.config import Config
from optictl.litellm import providers
from optictl.litellm.read import Chain, ModelEntry, Place, Settings, Unknown

#: Parameters of an entry whose name fits the pattern below, and that the graph follows or that do
#: not choose another entry or server.
PARAMETERS = frozenset({"fallbacks", "max_fallbacks", "silent_model", "provider_affinity_header"})
_ROUTING_PARAMETER = re.compile(r"fallback|alias|router|routing|silent|mirror|shadow|redirect")


@dataclass(frozen=True)
class Step:
    """One step of a route, in words, and the place in the configuration that causes it.

    `place` is None for the first step.
    """

    text: str
    place: Place | None = None
    #: an alias, a wildcard or a fallback; False for the plain entry of a model
    chosen: bool = False


Way = tuple[Step, ...]


@dataclass(frozen=True)
class Request:
    """A request to LiteLLM for a model.

    `origin`: the first name of the request. `hops`: fallbacks since then. `outside`: it came over
    HTTP, not from the router. `literal`: its name is the `model` of an entry; LiteLLM then reads
    every name as a `model`, those of fallbacks too.
    """

    name: str
    origin: str
    hops: int = 0
    outside: bool = True
    literal: bool = False


@dataclass(frozen=True)
class Hit:
    """An entry that the router finds for a name: its parameters for the call, and the route."""

    entry: ModelEntry
    parameters: Mapping[str, Any]
    way: Way = ()


@dataclass(frozen=True)
class Arrival:
    """A request that reaches OptiLLM: its model name, the entry that sends it, and its base URL."""

    name: str
    hit: Hit
    provider: str
    base: str

    @property
    def entry(self) -> ModelEntry:
        return self.hit.entry

    @property
    def is_understood(self) -> bool:
        """Whether it uses OpenAI's chat completions, the only protocol of OptiLLM.

        A prefix that optictl does not know counts: it may.
        """
        return self.provider in providers.OPENAI_SHAPED or not providers.is_known(self.provider)

    @property
    def is_lost(self) -> bool:
        """Whether its path is unknown to OptiLLM: LiteLLM adds /chat/completions, but not /v1."""
        is_literal = self.provider in ("openai", "custom_openai")
        return is_literal and urlsplit(self.base).path.rstrip("/") != "/v1"


@dataclass(frozen=True)
class Back:
    """LiteLLM calls itself, for this name."""

    name: str


@dataclass(frozen=True)
class Elsewhere:
    """The request goes to another server, or LiteLLM answers it itself."""

    where: str


@dataclass(frozen=True)
class UnknownPrefix:
    """An entry whose provider prefix optictl does not know: LiteLLM may ignore it or serve it."""

    prefix: str


Destination = Arrival | Back | Elsewhere | Unknown | UnknownPrefix


def written(way: Way) -> str:
    """A route as text: `jerry-xl -> [fallback] moa-jerry-xl -> OptiLLM`."""
    return " -> ".join(step.text for step in way)


def is_local(host: str, own_names: frozenset[str]) -> bool:
    """Whether a host in a URL is this machine.

    `own_names`: names and addresses of this machine, in lower case.
    """
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
    # not anchored at the end: LiteLLM does the same
    return re.compile(re.escape(name).replace(r"\*", "(.*)"))


class Graph:
    """The routes through a LiteLLM with these settings, around one deployment of OptiLLM.

    `own_names`: see `is_local`. `words`: those that OptiLLM reads as strategies. `listening`: the
    names of the address that OptiLLM listens on.
    """

    def __init__(
        self,
        settings: Settings,
        config: Config,
        own_names: frozenset[str] = frozenset(),
        words: Collection[str] = model_names.WORDS,
        listening: frozenset[str] = frozenset({"localhost"}),
    ) -> None:
        self.settings, self.config, self.own_names = settings, config, own_names
        self.listening = listening
        self.words = frozenset(words)
        #: entries that LiteLLM ignores at start
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
        return not unknown and providers.split(model, named) is None

    # names that clients may use

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every name in the settings and in optictl.yaml, and some names for each wildcard."""
        settings, known = (
            self.settings,
            [*self.config.base_models, *self.config.published, *self.config.publish.values()],
        )
        names = [
            *known,
            *(d.name for d in self.entries),
            *settings.aliases,
            *settings.rewrites,
            *self._ids,
        ]
        names += [target for target, _ in (*settings.aliases.values(), *settings.rewrites.values())]
        names += [
            name for chains in settings.chains for c in chains for name in (c.group, *c.targets)
        ]
        names += [m for d in self.entries if isinstance(m := d.parameters["model"], str)]
        names += [
            name.replace("*", part) for name, _ in self._patterns for part in (*known, "any-model")
        ]
        return tuple(dict.fromkeys(name for name in names if "*" not in name))

    # the router: a name -> entries

    def _entered(self, request: Request) -> tuple[Request, Way] | None:
        """A client's request as the router gets it. None when LiteLLM refuses its name earlier."""
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
        if name not in self._named and (matched := self._matched(name)):
            return [replace(hit, way=(*way, *hit.way)) for hit in matched]
        named = self._named.get(name) or self._by_model(name)
        if not named and (default := self._default()):
            label, target = default
            named, way = (
                self._named.get(target, []),
                (*way, Step(f"[{label.label}] {target}", label.place, chosen=True)),
            )
        return [_hit(entry, way) for entry in named]

    def _matched(self, name: str) -> list[Hit]:
        """The entries of the most specific wildcard for a name, with `*` in `model` replaced."""
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
        """The fallbacks of one kind for a request: by its name, its origin, or for any model."""
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
        """The fallback that LiteLLM uses for a name without an entry, or None."""
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

    # the destinations of an entry

    def destinations(self, hit: Hit) -> Iterator[tuple[Way, Destination]]:
        """The destinations of an entry: its own, and those of the fallbacks in the entry."""
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
        """The destination of one call. None when LiteLLM knows no provider for it."""
        parameters = hit.parameters
        if parameters.get("mock_response"):
            return Elsewhere("LiteLLM itself")
        model, named = parameters["model"], parameters.get("custom_llm_provider")
        if unknown := next((v for v in (model, named) if isinstance(v, Unknown)), None):
            return unknown
        provider_and_name = providers.split(model, named)
        if provider_and_name is None:
            return None
        provider, name = provider_and_name
        is_known = providers.is_known(provider) or provider in self.settings.own_providers
        elsewhere = Elsewhere(provider) if is_known else UnknownPrefix(provider)
        base = self._base(provider, parameters)
        if not isinstance(base, str):
            return base or elsewhere
        try:
            url = urlsplit(base.strip())
            port = url.port or {"http": 80, "https": 443}.get(url.scheme)
        except ValueError:
            return Elsewhere(f"{base!r}, which is not a URL") if is_known else elsewhere
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
        where = url.netloc.rpartition("@")[2]  # an address may hold a password
        return Elsewhere(where or base) if is_known else elsewhere

    def _base(self, provider: str, parameters: Mapping[str, Any]) -> str | Unknown | None:
        """The base URL of a call. None: the provider's public address."""
        stated = parameters.get("api_base") or parameters.get("base_url")
        if stated:
            return stated if isinstance(stated, Unknown) else str(stated)
        if provider in ("openai", "custom_openai") and (
            general := self.settings.library.get("api_base")
        ):
            return general if isinstance(general, Unknown) else str(general)
        variables = providers.OPENAI_VARIABLES.get(provider)
        if variables is None:  # a cloud: only a variable that is set changes its address
            seen = self.settings.variable(f"{provider.upper()}_API_BASE")
            return None if isinstance(seen, Unknown) else seen
        return next((value for name in variables if (value := self.settings.variable(name))), None)

    # routes

    def walk(self, start: Request) -> list[tuple[Way, Destination]]:
        """Every destination of a request, with the shortest route to each (breadth first)."""
        if start in self._walks:
            return self._walks[start]
        destinations: list[tuple[Way, Destination]] = []
        reported: set[Any] = set()
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
                    if (mark := _mark(destination)) not in reported:
                        reported.add(mark)
                        destinations.append((_ended(reached, destination), destination))
                for name in _mirrors(hit):
                    step = Step(f"[mirror] {name}", hit.entry.place, chosen=True)
                    queue.append((Request(name, name, outside=False), (*way, step)))
        self._walks[start] = destinations
        return destinations

    @cached_property
    def ways(self) -> list[tuple[Way, Destination]]:
        """The destinations of clients' requests, for every name, with the routes to them."""
        return [pair for name in self.names for pair in self.walk(_asked(name))]

    @cached_property
    def arrivals(self) -> list[tuple[Way, Arrival]]:
        """The requests that reach OptiLLM, with the shortest route of each."""
        arrivals: dict[Any, tuple[Way, Arrival]] = {}
        for way, destination in self.ways:
            if isinstance(destination, Arrival):
                mark = _mark(destination)
                if mark not in arrivals or len(way) < len(arrivals[mark][0]):
                    arrivals[mark] = way, destination
        return list(arrivals.values())

    def base_of(self, arrival: Arrival) -> str:
        """The model that OptiLLM requests from LiteLLM. OptiLLM's own parser reads the name."""
        return model_names.parse(arrival.name, self.words.union(self.config.strategies))[1]

    @cached_property
    def loops(self) -> list[tuple[Way, Arrival]]:
        """The routes from a base model that OptiLLM requests back to OptiLLM."""
        loops: dict[Any, tuple[Way, Arrival]] = {}
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
                    loops.setdefault(
                        (base, _mark(destination)), ((*way, Step(following)), destination)
                    )
                    if following not in seen:
                        seen.add(following)
                        pending.append(following)
        return list(loops.values())

    def deliveries(self, name: str) -> list[tuple[Hit, Destination]]:
        """The entries that LiteLLM has for a client's request, each with its own destination."""
        entered = self._entered(_asked(name))
        pairs = [(hit, self.destination(hit)) for hit in self.hits(entered[0])] if entered else []
        return [(hit, destination) for hit, destination in pairs if destination is not None]

    def address(self, hit: Hit) -> str | None:
        """The base URL in an entry or its variables, if it is known."""
        model, named = hit.parameters["model"], hit.parameters.get("custom_llm_provider")
        split = providers.split(model, named) if isinstance(model, str) else None
        base = self._base(split[0] if split else "", hit.parameters)
        return base.strip() if isinstance(base, str) else None

    def listens_at(self, base: str) -> bool | None:
        """Whether the socket of OptiLLM listens at a base URL. None: only a resolver knows."""
        url = urlsplit(base)
        host = (url.hostname or "").rstrip(".")
        if url.scheme != "http":
            return False
        if host in self.listening:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return None if host.endswith(".localhost") else False
        mapped = getattr(address, "ipv4_mapped", None) or address
        # a connection to 0.0.0.0 goes to 127.0.0.1
        return str(mapped) in (self.config.listen.host, "0.0.0.0")  # noqa: S104

    def served(self, name: str) -> list[Destination]:
        """The destinations of a model's own entries, without fallbacks."""
        entered = self._entered(_asked(name))
        return (
            [where for hit in self.hits(entered[0]) for _, where in self.destinations(hit)]
            if entered
            else []
        )

    def unclear(self) -> list[str]:
        """The reasons why the graph may be incomplete: unknown variables, unsupported settings."""
        variables = [d.variable for _, d in self.ways if isinstance(d, Unknown)]
        return list(dict.fromkeys((*variables, *self.settings.uncovered, *self._odd())))

    def _odd(self) -> Iterator[str]:
        for entry in self.entries:
            model = entry.parameters["model"]
            if isinstance(model, str) and model.startswith("auto_router/"):
                yield f"{model} (a router inside an entry, {entry.place})"
                continue
            for name, value in entry.parameters.items():
                if value and name not in PARAMETERS and _ROUTING_PARAMETER.search(name):
                    yield f"{name} of {entry.name} ({entry.place})"

    def unknown_names(self) -> list[str]:
        """The names that a newer LiteLLM may know and optictl does not, each with what has it."""
        prefixes = [
            f"the provider prefix {destination.prefix}"
            for _, destination in self.ways
            if isinstance(destination, UnknownPrefix)
        ]
        prefixes += [
            f"the provider prefix {arrival.provider}"
            for _, arrival in self.arrivals
            if not providers.is_known(arrival.provider)
        ]
        keys = {c.group for chains in self.settings.chains for c in chains}
        shortened = [
            f"the provider prefix {prefix}"
            for prefix, _, rest in (name.partition("/") for name in self._named)
            if rest in keys and not providers.is_known(prefix)
        ]
        matched = [
            f"the provider of the model {base}, which may match {pattern}"
            for base in self.config.base_models
            for pattern in self.possible_patterns(base)
        ]
        return list(dict.fromkeys([*prefixes, *shortened, *matched]))

    def possible_patterns(self, name: str) -> list[str]:
        """The wildcards with a provider that match a name, if LiteLLM infers this provider."""
        if name in self._named or "/" in name or providers.provider_of(name) or self._matched(name):
            return []
        return [
            pattern
            for pattern, compiled in self._patterns
            if "/" in pattern and compiled.match(f"{pattern.partition('/')[0]}/{name}")
        ]


def _hit(entry: ModelEntry, way: Way) -> Hit:
    return Hit(entry, entry.parameters, way)


def _asked(name: str) -> Request:
    return Request(name, name)


def _fill(model: str, parts: tuple[str | Any, ...]) -> str:
    for part in parts:
        model = model.replace("*", part, 1)
    return model


def _same_but_for_provider(name: str, key: str) -> bool:
    """Whether the key of a fallback means a name: the same name with or without its provider."""
    prefix, slash, rest = name.partition("/")
    if slash:
        return prefix in providers.PROVIDERS and rest == key
    return bool(provider := providers.provider_of(name)) and key == f"{provider}/{name}"


def _mirrors(hit: Hit) -> list[str]:
    """The models that get a copy of each prompt (`silent_model`)."""
    value = hit.parameters.get("silent_model")
    names = value if isinstance(value, list) else [value]
    return [name for name in names if isinstance(name, str)]


def _mark(destination: Destination) -> Any:
    """A key that is equal for equal destinations."""
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
