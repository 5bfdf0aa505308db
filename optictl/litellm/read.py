"""Read LiteLLM's YAML into typed settings for the routing of requests, with file and line."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

#: LiteLLM's defaults.
DEFAULT_RETRIES = 2
DEFAULT_MAX_FALLBACKS = 5

#: What the address of a running LiteLLM has behind it, where a file has its name.
ROW = " entry"
_REFERENCE = "os.environ/"
#: Settings that affect routing and that the graph does not support: section -> key -> what it does.
_UNCOVERED = {
    "router_settings": {
        "routing_groups": "groups of models under one name",
        "plugins": "code that chooses the model",
        "default_litellm_params": "parameters that override those of an entry",
    },
    "general_settings": {"store_model_in_db": "models in LiteLLM's database"},
    "litellm_settings": {"model_fallbacks": "fallbacks of LiteLLM's library"},
}
#: The names of router_settings that are followed, or that do not change a route.
ROUTER_SETTINGS = frozenset(
    """
    alerting_config allowed_fails allowed_fails_policy assistants_config
    auto_router_capability_limit background_health_check_model_groups cache_kwargs
    cache_responses caching_groups client_ttl content_policy_fallbacks context_window_fallbacks
    cooldown_time debug_level default_fallbacks default_litellm_params
    default_max_parallel_requests default_priority deployment_affinity_ttl_seconds
    disable_cooldowns enable_health_check_routing enable_mid_stream_fallback_continuation
    enable_pre_call_checks enable_tag_filtering enable_weighted_failover fallback_access_check
    fallback_budget_check fallback_on_unsupported_params fallbacks guardrail_list
    health_check_ignore_transient_errors health_check_staleness_threshold
    ignore_invalid_deployments max_fallbacks model_group_affinity_config model_group_alias
    model_group_retry_policy model_list num_retries optional_pre_call_checks plugins
    polling_interval provider_budget_config redis_db redis_host redis_password redis_port
    redis_url retry_after retry_policy router_general_settings routing_groups routing_strategy
    routing_strategy_args search_tools session_affinity_repin_on_failover set_verbose
    stream_timeout tag_filtering_match_any tag_routing_prefix timeout
    """.split()  # noqa: SIM905  (a list of sixty lines would hide it)
)
#: Other sections have hundreds of names. One that looks like routing and is not here is unknown.
_OTHER_SETTINGS = frozenset(
    """
    allowed_routes autorouter_presets_url completion_model content_policy_fallbacks
    context_window_fallbacks default_fallbacks disable_fallbacks_on_per_model_rate_limits
    enable_key_alias_format_validation enforce_fallback_model_access expose_fallback_errors
    expose_router_debug_in_errors fallbacks key_alias_pattern longer_context_model_fallback_dict
    max_fallbacks maximum_autorouter_session_retention_period model_alias_map model_fallbacks
    num_retries num_retries_per_request openrouter_key openrouter_models
    prometheus_user_budget_label_include_email_alias public_routes retry return_wildcard_routes
    route_all_chat_openai_to_responses
    """.split()  # noqa: SIM905
)
_ROUTING_SETTING = re.compile(r"fallback|alias|rout(e|ing|er)|mirror|silent|shadow|redirect")


@dataclass(frozen=True)
class Place:
    """A file and a line, from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Unusable(Exception):
    """LiteLLM cannot start with this configuration.

    `problems`: place and reason of each, as text.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Unknown:
    """A value that depends on an environment variable without a known value."""

    variable: str


@dataclass(frozen=True)
class ModelEntry:
    """An entry of `model_list`, or of /model/info of a running LiteLLM.

    `parameters`: its litellm_params, with the values of environment variables. `info`: its
    model_info.
    """

    name: str
    parameters: Mapping[str, Any]
    place: Place
    id: str | None = None
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Chain:
    """The fallbacks of `group` ("*": any model). `label`: the kind of fallback, for messages."""

    label: str
    group: str
    targets: tuple[str, ...]
    place: Place


@dataclass(frozen=True)
class Duplicate:
    """A key that is twice in one mapping. LiteLLM reads the last one and ignores the others.

    `is_section`: it is a key of the whole file, such as model_list.
    """

    key: str
    first: Place
    last: Place
    is_section: bool


@dataclass(frozen=True)
class Settings:
    """The part of a configuration that decides routes, retries and timeouts."""

    entries: tuple[ModelEntry, ...] = ()
    #: router aliases: name -> (target, place); they override entries of the same name
    aliases: Mapping[str, tuple[str, Place]] = field(default_factory=dict)
    #: names that LiteLLM replaces before the router sees them
    rewrites: Mapping[str, tuple[str, Place]] = field(default_factory=dict)
    #: the model that replaces the model of every request
    only_model: tuple[str, Place] | None = None
    #: one tuple per kind of failure; the first match in it counts
    chains: tuple[tuple[Chain, ...], ...] = ()
    max_fallbacks: int = DEFAULT_MAX_FALLBACKS
    router: Mapping[str, Any] = field(default_factory=dict)
    library: Mapping[str, Any] = field(default_factory=dict)
    #: LiteLLM's environment, or None when it is not known
    environment: Mapping[str, str] | None = None
    #: settings that the graph does not support, as text with the place
    uncovered: tuple[str, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()
    #: the places of the keys in router_settings and of those below: path -> place
    router_places: Mapping[tuple[str, ...], Place] = field(default_factory=dict)

    def variable(self, name: str) -> str | Unknown | None:
        """The value of a variable in LiteLLM's environment. None when it is not set or empty."""
        return Unknown(name) if self.environment is None else self.environment.get(name) or None

    @property
    def own_providers(self) -> frozenset[str]:
        """The prefixes in `custom_provider_map`."""
        listed = self.library.get("custom_provider_map")
        return (
            frozenset(str(i.get("provider")) for i in listed if isinstance(i, dict))
            if isinstance(listed, list)
            else frozenset()
        )

    def running(self, rows: Iterable[Any], address: str) -> Settings:
        """These settings with the entries of a running LiteLLM.

        `rows`: `data` of its /model/info.
        """
        entries = []
        for number, row in enumerate(rows, 1):
            parameters = row.get("litellm_params") if isinstance(row, dict) else None
            if isinstance(parameters, dict) and isinstance(parameters.get("model"), str):
                known = {key: value for key, value in parameters.items() if value is not None}
                place = Place(f"{address}{ROW}", number)
                entries.append(ModelEntry(str(row.get("model_name")), known, place))
        uncovered = tuple(text for text in self.uncovered if "store_model_in_db" not in text)
        return replace(self, entries=tuple(entries), uncovered=uncovered)


class _Mapping(dict[Any, Any]):
    """A YAML mapping with the place of each key."""

    places: dict[Any, Place]


class _Sequence(list[Any]):
    """A YAML sequence with the place of each item."""

    places: list[Place]


class _Loader(yaml.SafeLoader):
    file = ""
    duplicates: list[Duplicate]
    #: the mapping of the whole file
    root: yaml.Node | None = None

    def place(self, node: yaml.Node) -> Place:
        return Place(self.file, node.start_mark.line + 1)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> Any:
    data = _Mapping()
    data.places = {}
    loader.duplicates += _duplicates(loader, node)  # before `<<` adds the keys of other mappings
    yield data
    data.update(loader.construct_mapping(node))
    data.places.update({loader.construct_object(key): loader.place(key) for key, _ in node.value})


def _duplicates(loader: _Loader, node: yaml.MappingNode) -> Iterator[Duplicate]:
    """The keys that are twice in a mapping, each with its first and its last place."""
    places: dict[str, list[Place]] = {}
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            places.setdefault(key.value, []).append(loader.place(key))
    for name, (first, *others) in places.items():
        if others:
            yield Duplicate(name, first, others[-1], node is loader.root)


def _sequence(loader: _Loader, node: yaml.SequenceNode) -> Any:
    data = _Sequence()
    data.places = [loader.place(item) for item in node.value]
    yield data
    data.extend(loader.construct_sequence(node))


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:seq", _sequence)


def _parse(text: str, file: str, duplicates: list[Duplicate]) -> _Mapping:
    loader = type("_FileLoader", (_Loader,), {"file": file, "duplicates": duplicates})(text)
    try:
        loader.root = loader.get_single_node()
        data = None if loader.root is None else loader.construct_document(loader.root)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or "cannot be read"
        raise Unusable([f"{file}:{mark.line + 1 if mark else 1}: not valid YAML: {what}"]) from None
    except RecursionError:
        raise Unusable([f"{file}: not valid YAML: nested too deep"]) from None
    except (
        ValueError,
        OverflowError,
    ) as error:  # a scalar like 2024-13-45, which PyYAML lets through
        raise Unusable([f"{file}: not valid YAML: {error}"]) from None
    finally:
        loader.dispose()
    if not isinstance(data, _Mapping):
        raise Unusable([f"{file}: must be a mapping of keys to values"])
    return data


def _places(data: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Place]]:
    """The places of the keys of a mapping, and of those of the mappings in it, three deep."""
    for key, place in getattr(data, "places", {}).items() if isinstance(data, _Mapping) else ():
        path = (*above, str(key))
        yield path, place
        if len(path) < 3:  # model_group_retry_policy, a model, a name
            yield from _places(data.get(key), path)


def _merge(base: _Mapping, included: _Mapping) -> None:
    """Merge an included file as LiteLLM does: append to lists, replace everything else."""
    for key, value in included.items():
        if key == "include":
            continue
        mine = base.get(key)
        if isinstance(mine, _Sequence) and isinstance(value, _Sequence):
            longer = _Sequence([*mine, *value])
            longer.places = [*mine.places, *value.places]
            value = longer
        base[key] = value
        base.places[key] = included.places[key] if key in included.places else base.places[key]


def _whole(path: str, read: Callable[[str], str | None], duplicates: list[Duplicate]) -> _Mapping:
    """The configuration at `path` with everything that it includes.

    `read`: returns the text of a file, or None when there is no file. `duplicates`: gets the keys
    that are twice in a mapping.
    """
    text = read(path)
    if text is None:
        raise Unusable([f"{path} does not exist"])
    data = _parse(text, path, duplicates)
    pending, seen = _includes(data, path), {path}
    while pending:
        name, place = pending.pop(0)
        beside, below = (
            posixpath.normpath(posixpath.join(posixpath.dirname(base), name))
            for base in (place.file, path)
        )
        file = beside
        if beside in seen:
            continue
        text = read(beside)
        if text is None and below != beside:  # an older LiteLLM looks next to the first file
            file, text = below, read(below)
        if text is None:
            raise Unusable([f"{place}: includes {name}, but {beside} does not exist"])
        if file in seen:
            continue
        seen.add(file)
        included = _parse(text, file, duplicates)
        _merge(data, included)
        pending += _includes(included, file)
    return data


def _includes(data: _Mapping, file: str) -> list[tuple[str, Place]]:
    if "include" not in data:
        return []
    names = data["include"]
    place = data.places.get("include", Place(file, 1))
    if not isinstance(names, _Sequence) or not all(isinstance(name, str) for name in names):
        raise Unusable([f"{place}: include must be a list of file paths"])
    return list(zip(names, names.places, strict=True))


def _is_known_setting(section: str, name: str) -> bool:
    """Whether the graph follows a setting, or the setting does not change a route."""
    if section == "router_settings":
        return name in ROUTER_SETTINGS
    return name in _OTHER_SETTINGS or not _ROUTING_SETTING.search(name)


class _Reader:
    """Reads a merged configuration and collects its problems."""

    def __init__(self, data: _Mapping, file: str, environment: Mapping[str, str] | None) -> None:
        self.data, self.file, self.environment = data, file, environment
        self.problems: list[str] = []

    def section(self, name: str, within: Mapping[Any, Any] | None = None) -> _Mapping:
        holder = self.data if within is None else within
        value = holder.get(name)
        if isinstance(value, _Mapping):
            return value
        if value is not None:
            self.wrong(self.place(holder, name), f"{name} must be a mapping of keys to values")
        empty = _Mapping()
        empty.places = {}
        return empty

    def place(self, holder: Any, key: Any) -> Place:
        places = getattr(holder, "places", {})
        try:
            place = places[key]
        except (KeyError, IndexError):
            return Place(self.file, 1)
        return place if isinstance(place, Place) else Place(self.file, 1)

    def wrong(self, place: Place, what: str) -> None:
        self.problems.append(f"{place}: {what}")

    def value(self, raw: Any) -> Any:
        """A value with each `os.environ/NAME` replaced by its value, at any depth."""
        if isinstance(raw, str) and raw.startswith(_REFERENCE):
            name = raw.removeprefix(_REFERENCE)
            given = None if self.environment is None else self.environment.get(name)
            return Unknown(name) if given is None else given
        if isinstance(raw, dict):
            return {key: self.value(inner) for key, inner in raw.items()}
        return raw

    def entries(self) -> tuple[ModelEntry, ...]:
        entries = self.data.get("model_list")
        if entries is None:
            return ()
        if not isinstance(entries, _Sequence):
            self.wrong(self.place(self.data, "model_list"), "model_list must be a list")
            return ()
        credentials = self.credentials()
        parsed = []
        for number, entry in enumerate(entries):
            place = entries.places[number]
            name = entry.get("model_name") if isinstance(entry, dict) else None
            raw = entry.get("litellm_params") if isinstance(entry, dict) else None
            if not isinstance(name, str):
                self.wrong(place, "an entry of model_list has no model_name")
            elif not isinstance(raw, dict) or not isinstance(raw.get("model"), str):
                self.wrong(place, f"{name} has no litellm_params with a model")
            else:
                named = credentials.get(str(raw.get("litellm_credential_name")), {})
                info = entry.get("model_info")
                info = info if isinstance(info, dict) else {}
                own = info.get("id")
                parameters = {**named, **self.value(raw)}
                parsed.append(
                    ModelEntry(name, parameters, place, None if own is None else str(own), info)
                )
        return tuple(parsed)

    def credentials(self) -> dict[str, dict[str, Any]]:
        """`credential_list`: name -> values for the entries that use this name."""
        listed = self.data.get("credential_list")
        credentials = {}
        for item in listed if isinstance(listed, list) else ():
            values = item.get("credential_values") if isinstance(item, dict) else None
            if isinstance(values, dict):
                credentials[str(item.get("credential_name"))] = self.value(values)
        return credentials

    def names(self, section: _Mapping, key: str) -> dict[str, tuple[str, Place]]:
        """A mapping of names to names, or to {model: name, hidden: ...}."""
        aliases = self.section(key, section)
        targets = {}
        for name, target in aliases.items():
            model = target.get("model") if isinstance(target, dict) else target
            if isinstance(name, str) and isinstance(model, str) and model:
                targets[name] = (model, self.place(aliases, name))
        return targets

    def chain(self, label: str, group: str, targets: Any, place: Place) -> Chain | None:
        named: list[Any] = (
            [t.get("model") if isinstance(t, dict) else t for t in targets]
            if isinstance(targets, list)
            else [None]
        )
        if not all(isinstance(target, str) for target in named):
            self.wrong(place, f"the {label}s of {group} must be a list of model names")
            return None
        return Chain(label, group, tuple(named), place)

    def list_of_chains(self, key: str, label: str, *sections: _Mapping) -> list[Chain]:
        holder = next((s for s in sections if s.get(key)), None)
        if holder is None:
            return []
        entries = holder[key]
        if not isinstance(entries, _Sequence):
            self.wrong(self.place(holder, key), f"{key} must be a list")
            return []
        chains = []
        for entry, place in zip(entries, entries.places, strict=True):
            if not isinstance(entry, _Mapping) or len(entry) != 1:
                self.wrong(
                    place, f"an entry of {key} must be a mapping with one key: MODEL: [OTHER]"
                )
                continue
            ((group, targets),) = entry.items()
            if chain := self.chain(label, str(group), targets, self.place(entry, group)):
                chains.append(chain)
        return chains

    def default_chains(self, *sections: _Mapping) -> list[Chain]:
        holder = next((s for s in sections if s.get("default_fallbacks")), None)
        if holder is None:
            return []
        place = self.place(holder, "default_fallbacks")
        chain = self.chain("default fallback", "*", holder["default_fallbacks"], place)
        return [chain] if chain else []

    def number(self, default: int, key: str, *sections: _Mapping) -> int:
        for section in sections:
            value = section.get(key)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                self.wrong(self.place(section, key), f"{key} must be a whole number")
                return default
            return value
        return default

    def uncovered(self) -> tuple[str, ...]:
        settings = []
        for name, keys in _UNCOVERED.items():
            section = self.section(name)
            settings += [
                f"{name}.{key} ({what}, {self.place(section, key)})"
                for key, what in keys.items()
                if section.get(key)
            ]
            settings += [
                f"{name}.{key} (a setting that optictl does not know, {self.place(section, key)})"
                for key in section
                if not _is_known_setting(name, str(key))
            ]
        return tuple(settings)

    def settings(self) -> Settings:
        router, library, general = (
            self.section(n) for n in ("router_settings", "litellm_settings", "general_settings")
        )
        only = general.get("completion_model")
        return Settings(
            entries=self.entries(),
            aliases=self.names(router, "model_group_alias"),
            rewrites=self.names(library, "model_alias_map"),
            only_model=(only, self.place(general, "completion_model"))
            if isinstance(only, str)
            else None,
            chains=self.chains(router, library),
            max_fallbacks=self.number(DEFAULT_MAX_FALLBACKS, "max_fallbacks", router, library),
            router=self.value(router),
            router_places=dict(_places(router)),
            library=self.value(library),
            environment=self.whole_environment(),
            uncovered=self.uncovered(),
        )

    def chains(self, *sections: _Mapping) -> tuple[tuple[Chain, ...], ...]:
        """The fallbacks for a failure, for a prompt that is too long, and for a refused one."""
        plain = self.list_of_chains("fallbacks", "fallback", *sections)
        long = self.list_of_chains("context_window_fallbacks", "context window fallback", *sections)
        refused = self.list_of_chains(
            "content_policy_fallbacks", "content policy fallback", *sections
        )
        return tuple(plain + self.default_chains(*sections)), tuple(long), tuple(refused)

    def whole_environment(self) -> Mapping[str, str] | None:
        """LiteLLM's environment with the variables that its configuration sets."""
        if self.environment is None:
            return None
        stated = self.section("environment_variables").items()
        own = {str(name): str(value) for name, value in stated if isinstance(value, str | int)}
        return {**self.environment, **own}


def load(
    path: str, read: Callable[[str], str | None], environment: Mapping[str, str] | None
) -> Settings:
    """Read the configuration at `path`, with the files that it includes.

    `read`: returns the text of a file, or None when there is no file. `environment`: LiteLLM's
    environment, or None when it is not known.

    Raises:
        Unusable: LiteLLM cannot start with it. The error lists every problem.
    """
    duplicates: list[Duplicate] = []
    reader = _Reader(_whole(path, read, duplicates), path, environment)
    settings = reader.settings()
    if reader.problems:
        raise Unusable(list(dict.fromkeys(reader.problems)))
    return replace(settings, duplicates=tuple(duplicates))
