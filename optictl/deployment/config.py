"""optictl.yaml as a typed model, with its defaults.

All problems of a file are reported at once, each with its key and line.
"""

from __future__ import annotations

import difflib
import reprlib
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from optictl.deployment import model_names
from optictl.errors import ConfigError, ConfigNotEdited, Problem
from optictl.guard import invariants

if TYPE_CHECKING:
    import yaml


def _wrong(problems: list[tuple[int | str | None, str]]) -> PydanticCustomError:
    """An error with several problems of one value: (item, text). The item is None for the value."""
    return PydanticCustomError(
        "several", "{text}", {"text": "; ".join(text for _, text in problems), "problems": problems}
    )


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Listen(_Section):
    """Where the proxy listens: this machine only."""

    host: str = Field(
        "127.0.0.1", description="Always 127.0.0.1: clients reach OptiLLM through LiteLLM."
    )
    port: int = Field(
        4020, ge=1, le=65535, description="Each deployment on a host needs its own port."
    )

    @field_validator("host")
    @classmethod
    def _loopback(cls, host: str) -> str:
        if host != "127.0.0.1":
            raise ValueError("must be 127.0.0.1: the proxy is for LiteLLM on this machine only")
        return host


class Upstream(_Section):
    """LiteLLM, as OptiLLM calls it back."""

    base_url: str = Field(
        "http://127.0.0.1:4000/v1", description="LiteLLM's address with /v1; this machine only."
    )
    max_retries: int = Field(
        0, ge=0, le=5, description="Retries of one upstream call. LiteLLM retries already."
    )

    @field_validator("base_url")
    @classmethod
    def _loopback(cls, base_url: str) -> str:
        if problem := invariants.upstream_problem(base_url):
            raise ValueError(problem)
        return base_url.rstrip("/")


class OptiLLM(_Section):
    """The OptiLLM to install."""

    version: str = Field(
        "0.3.12",
        pattern=r"^\d+(\.\d+)*([a-z0-9.]*)$",
        description="A version that has a lock. `optictl upgrade` changes it.",
    )
    profile: Literal["proxy", "full"] = Field(
        "proxy",
        description="proxy: the packages that a proxy needs; full: all that OptiLLM declares.",
    )


class Releases(_Section):
    """How many releases stay on disk."""

    keep: int = Field(
        2,
        ge=1,
        le=20,
        description="Releases to keep: the active one, the previous one, then the newest.",
    )


class LiteLLM(_Section):
    """Paths of LiteLLM's files, for the loop check. null: not checked."""

    config: str | None = Field(None, description="The path of LiteLLM's configuration file.")
    env: str | None = Field(
        None, description="The path of the env file with the environment of LiteLLM."
    )


class Timeouts(_Section):
    """Time limits in seconds."""

    request: int = Field(
        600, ge=1, le=86_400, description="The longest time that a client request may take."
    )
    drain: int = Field(
        300, ge=0, le=86_400, description="The longest time that a stopping service may drain."
    )
    head: int = Field(
        10,
        ge=1,
        le=3600,
        description="The longest time for the head of a request to arrive; then 408 or close.",
    )
    body: int = Field(
        30, ge=1, le=3600, description="The longest time for the body to arrive; then 400."
    )
    read: int = Field(
        30,
        ge=1,
        le=3600,
        description="The longest time without progress of a client that reads an answer; "
        "then the connection is closed.",
    )


class Limits(_Section):
    """Limits for requests."""

    max_upstream_calls: int = Field(
        64,
        ge=1,
        le=10_000,
        description="Upstream calls of one request; a request with more fails with 400.",
    )
    max_body_bytes: int = Field(
        4 * 1024 * 1024,
        ge=1024,
        le=1024**3,
        description="The largest request body in bytes; a larger one gets 413.",
    )
    max_in_flight: int = Field(
        64,
        ge=1,
        le=512,
        description="Requests that run at the same time; the same number may wait.",
    )
    max_connections: int = Field(
        1024,
        ge=16,
        le=2048,
        description="Connections that are open at the same time; the one that waits longest "
        "without a request is closed for a new one.",
    )
    max_traces: int = Field(
        200,
        ge=0,
        le=10_000,
        description="Requests whose traces the service keeps in memory.",
    )


class Effect(_Section):
    """What the service fixes so that a strategy has its effect, and when check reports a loss."""

    samples: bool = Field(
        True, description="Ask for missing samples: many upstreams return one choice for `n: 3`."
    )
    budgets: bool = Field(
        True,
        description="Give critiques and ratings a token limit that a real answer fits into: "
        "OptiLLM drops one that reaches its limit of 512 or 256.",
    )
    ratings: bool = Field(
        True,
        description="Read ratings such as 8/10, and ask once more for one without a number: "
        "OptiLLM takes them for 0.",
    )
    votes: bool = Field(
        True,
        description="Let self_consistency vote on the final answers: long texts are never equal.",
    )
    caches: bool = Field(
        True,
        description="Keep LiteLLM's response cache away from the calls of one request: "
        "it returns one sample several times.",
    )
    thinking: bool = Field(
        True,
        description="Hide the thinking of a candidate from the critique, the rating and the vote: "
        "only its answer counts.",
    )
    critique_tokens: int = Field(
        4096, ge=256, le=1_000_000, description="The token limit of a critique, with `budgets`."
    )
    rating_tokens: int = Field(
        1024, ge=16, le=1_000_000, description="The token limit of a rating, with `budgets`."
    )
    warn_percent: int = Field(
        10,
        ge=1,
        le=100,
        description="Percentage of a strategy's last requests without effect from which "
        "strategies.effect warns.",
    )
    fail_percent: int = Field(
        50,
        ge=1,
        le=100,
        validate_default=True,
        description="Percentage from which it fails; at least `warn_percent`.",
    )
    at_least: int = Field(
        20, ge=1, le=100, description="Requests of a strategy that it needs for a verdict."
    )

    @field_validator("fail_percent")
    @classmethod
    def _not_before_the_warning(cls, percent: int, seen: ValidationInfo) -> int:
        if percent < seen.data.get("warn_percent", 0):
            raise ValueError("must be at least warn_percent")
        return percent

    @property
    def fixes(self) -> tuple[str, ...]:
        """The fixes that are on."""
        return tuple(name for name, value in self if value is True)


class Monitoring(_Section):
    """A timer that checks the deployment every minute. systemctl --failed lists a failed check."""

    timer: bool = Field(False, description="Install the timer. It needs systemd.")
    fail_after: int = Field(
        3, ge=1, le=1000, description="Consecutive failed runs after which the check's unit fails."
    )
    well_after: int = Field(
        2, ge=1, le=1000, description="Consecutive passed runs after which the unit recovers."
    )
    textfile: str | None = Field(
        None,
        description="A file for the metrics of each run, read by node_exporter: "
        "an absolute path that ends in .prom.",
    )

    @field_validator("textfile")
    @classmethod
    def _collected(cls, textfile: str | None) -> str | None:
        if textfile is not None and not (
            textfile.startswith("/") and textfile.endswith(".prom") and textfile.isprintable()
        ):
            raise ValueError(
                "must be an absolute path that ends in .prom: node_exporter reads no other file"
            )
        return textfile


Name = Annotated[str, Field(min_length=1, max_length=200)]


class Config(_Section):
    """A deployment of OptiLLM behind LiteLLM."""

    # the order matters: a validator sees only the valid fields above its own
    listen: Listen = Listen()
    upstream: Upstream = Field(Upstream(), validate_default=True)
    model: Name = Field("jerry-xl", description="The base model that OptiLLM is started with.")
    base_models: tuple[Name, ...] = Field(
        (), validate_default=True, description="The models that may be called. Default: `model`."
    )
    approach: Literal["proxy", "auto"] = Field(
        "proxy", description="How OptiLLM finds its upstream client."
    )
    optillm: OptiLLM = OptiLLM()
    plugins: tuple[Name, ...] = Field(
        (), description="OptiLLM plugin files; copied into the release."
    )
    allow_code_execution: bool = Field(
        False,
        description="Allow strategies that run code of a model or open addresses that it names: "
        f"{', '.join(model_names.CODE_EXECUTION)}.",
    )
    strategies: tuple[Name, ...] = Field(
        ("moa", "bon", "plansearch", "self_consistency"),
        description="The strategies that requests may use.",
    )
    choice: Literal["name", "prompt"] = Field(
        "name",
        description="What chooses the strategy. name: the model name only; prompt: also "
        "<optillm_approach> tags in messages and the body field optillm_approach.",
    )
    publish: dict[Name, Name] = Field(
        {}, description="Extra LiteLLM names for strategy models: {boost: moa-jerry-xl}."
    )
    releases: Releases = Releases()
    litellm: LiteLLM = LiteLLM()
    monitoring: Monitoring = Monitoring()
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
    effect: Effect = Effect()
    workers: int = Field(
        1,
        ge=1,
        le=16,
        description="Processes that serve requests. The limits are per process; one uses one core.",
    )
    isolation: Literal["sealed", "loopback"] = Field(
        "sealed",
        description="sealed: no network and an empty root; loopback: only the loopback network.",
    )

    @field_validator("base_models", "strategies", "plugins", mode="before")
    @classmethod
    def _sequence(cls, value: Any) -> Any:
        # strict mode takes tuples only; YAML has lists
        return tuple(value) if isinstance(value, list) else value

    @field_validator("upstream")
    @classmethod
    def _not_the_proxy(cls, upstream: Upstream, seen: ValidationInfo) -> Upstream:
        listen = seen.data.get("listen")
        url = urlsplit(upstream.base_url)
        port = url.port or (443 if url.scheme == "https" else 80)
        if (
            listen is not None
            and port == listen.port
            and url.hostname in (listen.host, "localhost")
        ):
            raise _wrong([("base_url", f"is the proxy itself: it listens on port {listen.port}")])
        return upstream

    @field_validator("model")
    @classmethod
    def _model(cls, name: str) -> str:
        if problem := model_names.base_model_problem(name):
            raise ValueError(f"{name!r} {problem}")
        return name

    @field_validator("base_models")
    @classmethod
    def _base_models(cls, names: tuple[str, ...], seen: ValidationInfo) -> tuple[str, ...]:
        model = seen.data.get("model")
        if not names:
            return (model,) if model else ()
        problems: list[tuple[int | str | None, str]] = [
            (i, f"{name!r} {problem}")
            for i, name in enumerate(names)
            if (problem := model_names.base_model_problem(name))
        ]
        if model and model not in names:
            problems.append((None, f"model {model!r} is not in base_models"))
        if problems:
            raise _wrong(problems)
        return tuple(dict.fromkeys(names))

    @field_validator("strategies")
    @classmethod
    def _strategies(cls, names: tuple[str, ...], seen: ValidationInfo) -> tuple[str, ...]:
        # a plugin file adds its own strategy
        known = model_names.WORDS if not seen.data.get("plugins", True) else None
        optillm = seen.data.get("optillm")
        if optillm is not None and not model_names.are_known(optillm.version):
            known = None  # the build of the release decides
        problems: list[tuple[int | str | None, str]] = []
        for i, name in enumerate(names):
            if name in model_names.NOT_STRATEGIES:
                problems.append((i, f"{name!r} {model_names.NOT_STRATEGIES[name]}"))
            elif not model_names.is_slug(name):
                problems.append((i, f"{name!r} cannot be a strategy's name"))
            elif known and name not in known:
                problems.append((i, f"OptiLLM has no {name!r}{suggest(name, known)}"))
            # a permission that is not a boolean has its own problem
            if not seen.data.get("allow_code_execution", True):
                problems += [
                    (i, f"{part!r} {what}: it needs allow_code_execution: true")
                    for part, what in model_names.code_execution([name]).items()
                ]
        if not names:
            problems.append((None, "must name at least one strategy"))
        # the names of plugins are known here only; base_models is already checked for all others
        own = set(names) - model_names.WORDS
        problems += [
            (None, f"base model {base!r} {problem}")
            for base in seen.data.get("base_models", ())
            if (problem := model_names.base_model_problem(base, own))
        ]
        if problems:
            raise _wrong(problems)
        return tuple(dict.fromkeys(names))

    @field_validator("publish")
    @classmethod
    def _publish(cls, names: dict[str, str], seen: ValidationInfo) -> dict[str, str]:
        if not {"strategies", "base_models"} <= seen.data.keys():
            return names  # those fields have their own problems
        strategies, base_models = seen.data["strategies"], seen.data["base_models"]
        problems: list[tuple[int | str | None, str]] = []
        for name, target in names.items():
            if not model_names.is_name(name):
                problems.append((name, "is not a model name (letters, digits and . _ : / @ + -)"))
            elif name in base_models:
                problems.append((name, "is a base model: its calls would loop"))
            elif model_names.split(target, strategies, base_models) is None:
                problems.append((name, f"{target!r} is not an enabled strategy on a base model"))
            elif name != target and model_names.split(name, strategies, base_models):
                problems.append((name, f"is already published, but not as {target!r}"))
            elif problem := _misleading(name, target, strategies):
                problems.append((name, problem))
        if problems:
            raise _wrong(problems)
        return names

    def moved(self, port: int, base_url: str, **timeouts: int) -> Config:
        """This configuration with another port and upstream, for trials and the demonstration.

        `timeouts`: seconds, as in the section `timeouts`.
        """
        return self.model_copy(
            update={
                "listen": self.listen.model_copy(update={"port": port}),
                "upstream": self.upstream.model_copy(update={"base_url": base_url}),
                "timeouts": self.timeouts.model_copy(update=timeouts),
            }
        )

    @property
    def url(self) -> str:
        """The base URL of the proxy, for LiteLLM."""
        return f"http://{self.listen.host}:{self.listen.port}/v1"

    @property
    def published(self) -> dict[str, str]:
        """LiteLLM name -> strategy model: every strategy on every base model, then `publish`."""
        own = {f"{s}-{b}": f"{s}-{b}" for b in self.base_models for s in self.strategies}
        return {**own, **self.publish}


def _misleading(name: str, target: str, strategies: tuple[str, ...]) -> str | None:
    """The reason why a published name suggests another strategy than its own, or None."""
    first, strategy = name.partition("-")[0], target.partition("-")[0]
    if first.lower() not in model_names.WORDS.union(strategies) or first == strategy:
        return None
    return f"looks like the strategy {first.lower()!r}, but {target!r} is {strategy!r}"


def suggest(word: str, known: Any) -> str:
    """A suggestion to append to a message: the known word most like this one. "" without one."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _known_keys(path: tuple[Any, ...]) -> list[str]:
    """The keys that are allowed in the section at `path`."""
    section: Any = Config
    for step in path:
        field = (
            section.model_fields.get(step)
            if isinstance(section, type) and issubclass(section, BaseModel)
            else None
        )
        if field is None:
            return []
        section = field.annotation
    return (
        list(section.model_fields)
        if isinstance(section, type) and issubclass(section, BaseModel)
        else []
    )


def _lines(
    node: yaml.Node | None, path: tuple[Any, ...] = ()
) -> tuple[dict[tuple[Any, ...], int], list[Problem]]:
    """The line numbers of the keys and items in a YAML tree, and problems for duplicate keys."""
    import yaml

    lines: dict[tuple[Any, ...], int] = {}
    problems: list[Problem] = []
    children: list[tuple[Any, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, value in node.value:
            if key.value in names:
                dotted = ".".join(map(str, (*path, key.value)))
                problems.append(Problem(dotted, key.start_mark.line + 1, "is twice in the file"))
            names.add(key.value)
            children.append((key.value, key, value))
    elif isinstance(node, yaml.SequenceNode):
        children = [(index, value, value) for index, value in enumerate(node.value)]
    for step, anchor, value in children:
        place = (*path, step)
        lines[place] = anchor.start_mark.line + 1
        if len(path) < _DEPTH:  # no key is deeper, and YAML aliases may be circular
            below, wrong = _lines(value, place)
            lines.update(below)
            problems += wrong
    return lines, problems


#: The configuration has no key below this depth.
_DEPTH = 2

#: pydantic's error types -> messages for authors of YAML.
_WORDS = {
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "string_type": "must be text (quote it when YAML reads it as something else)",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "invalid_key": "must be text",
}


def _problems(error: Any, lines: dict[tuple[Any, ...], int]) -> list[Problem]:
    path = tuple(error["loc"])
    if len(path) > 1 and path[-1] == "[key]":  # pydantic means the key here, not its value
        path = path[:-1]
    kind = error["type"]
    if kind == "several":
        return [
            Problem(*_place(path if item is None else (*path, item), lines), text)
            for item, text in error["ctx"]["problems"]
        ]
    message = error["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        message = f"unknown key{suggest(str(path[-1]), _known_keys(path[:-1]))}"
    elif kind not in ("value_error", "missing"):
        words = _WORDS.get(
            kind, f"{message[:1].lower()}{message[1:]}".replace("input should", "must")
        )
        message = f"{words}, not {_short(error.get('input'))}"
    return [Problem(*_place(path, lines), message)]


def _place(path: tuple[Any, ...], lines: dict[tuple[Any, ...], int]) -> tuple[str, int | None]:
    """The path with dots, and the line of its deepest part that is in the file."""
    line = next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), None)
    return ".".join(map(str, path)), line


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    try:
        return reprlib.repr(value)
    except ValueError:  # Python does not print an integer with thousands of digits
        return "a very large number"


def _read_yaml(text: str, source: str) -> tuple[yaml.Node | None, Any]:
    """The text as YAML: with the places of its values, and as data."""
    import yaml  # a fast command without a configuration file does not need it

    line: int | None = None
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else None
        why = getattr(error, "problem", None) or "cannot be read"
    except RecursionError:
        why = "nested too deep"
    except (ValueError, OverflowError) as error:  # 2024-13-45, which PyYAML lets through
        why = str(error)
    raise ConfigError(source, [Problem("", line, f"not valid YAML: {why}")])


def parse(text: str, source: str) -> Config:
    """The configuration in a YAML text. An empty text means the defaults.

    Raises:
        ConfigError: the text is not valid. It lists every problem; `source` names the file.
    """
    node, data = _read_yaml(text, source)
    if data is None:
        return Config()
    if not isinstance(data, dict):
        raise ConfigError(source, [Problem("", 1, "must be a mapping of keys to values")])
    lines, problems = _lines(node)
    try:
        config = Config.model_validate(data)
    except ValidationError as invalid:
        problems += [
            problem
            for error in invalid.errors(include_url=False)
            for problem in _problems(error, lines)
        ]
    if problems:
        raise ConfigError(source, sorted(problems, key=lambda p: (p.line or 0, p.path)))
    return config


def with_version(text: str, source: str, version: str) -> str:
    """The text of an optictl.yaml with another `optillm.version`. Nothing else in it changes.

    Raises:
        OptictlError: the version cannot be replaced safely in this text.
    """
    config = parse(text, source)
    changed = config.model_copy(
        update={"optillm": config.optillm.model_copy(update={"version": version})}
    )
    if config == changed:
        return text
    edited = _edited_version(text, version)
    with suppress(ConfigError):
        if parse(edited, source) == changed:
            return edited
    raise ConfigNotEdited(
        f"optictl cannot set optillm.version in {source}",
        remedy=f"set it to {version} by hand, then run the command again",
    )


def _edited_version(text: str, version: str) -> str:
    """The text with the version where YAML has it, or in the place for it. It may not be valid."""
    import yaml

    sections = {
        key.value: value
        for key, value in (
            yaml.compose(text, Loader=yaml.SafeLoader) or yaml.MappingNode("", [])
        ).value
    }
    optillm = sections.get("optillm")
    values = (
        {key.value: (key, value) for key, value in optillm.value}
        if isinstance(optillm, yaml.MappingNode)
        else {}
    )
    word = version if isinstance(yaml.safe_load(version), str) else f'"{version}"'
    if "version" in values:
        mark = values["version"][1]
        return text[: mark.start_mark.index] + word + text[mark.end_mark.index :]
    if values:
        first = next(iter(values.values()))[0].start_mark
        between = ", " if optillm is not None and optillm.flow_style else "\n" + " " * first.column
        return f"{text[: first.index]}version: {word}{between}{text[first.index :]}"
    return f"{text.rstrip()}\n\noptillm:\n  version: {word}\n" if optillm is None else text


def schema() -> dict[str, Any]:
    """The JSON Schema of optictl.yaml."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
