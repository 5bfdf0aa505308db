"""One deployment as a typed model. Its defaults are the specification.

Every problem of a file is found in one go, each with its path in the file and its line.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from optictl import models
from optictl.guard import invariants

if TYPE_CHECKING:
    import yaml


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a configuration: where (dotted path, line from 1 or None) and what."""

    path: str
    line: int | None
    message: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.path}: {self.message}" if self.path else f"{where}{self.message}"


class ConfigError(Exception):
    """A configuration that may not be used. `problems` holds all of them, in the order of the file."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        super().__init__(f"{source}: {len(problems)} problem(s)")
        self.source, self.problems = source, problems


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Listen(_Section):
    """Where the proxy listens: this machine only."""

    host: str = Field("127.0.0.1", description="Always 127.0.0.1: clients reach OptiLLM through LiteLLM.")
    port: int = Field(4020, ge=1, le=65535)

    @field_validator("host")
    @classmethod
    def _loopback(cls, host: str) -> str:
        if host != "127.0.0.1":
            raise ValueError("must be 127.0.0.1: the proxy is for LiteLLM on this machine only")
        return host


class Upstream(_Section):
    """LiteLLM, as OptiLLM calls it back."""

    base_url: str = Field("http://127.0.0.1:4000/v1", description="LiteLLM's address with /v1; this machine only.")
    max_retries: int = Field(0, ge=0, le=5, description="Retries of one upstream call. LiteLLM retries already.")

    @field_validator("base_url")
    @classmethod
    def _loopback(cls, base_url: str) -> str:
        if problem := invariants.upstream_problem(base_url):
            raise ValueError(problem)
        return base_url.rstrip("/")


class OptiLLM(_Section):
    """Which OptiLLM is installed."""

    version: str = Field("0.3.12", pattern=r"^\d+(\.\d+)*([a-z0-9.]*)$")
    profile: Literal["proxy", "full"] = Field("proxy", description="proxy: what a proxy needs; full: all it declares.")


class LiteLLM(_Section):
    """Where LiteLLM's own configuration lies, for the loop check. Paths, or null."""

    config: str | None = None
    env: str | None = None


class Timeouts(_Section):
    """Seconds."""

    request: int = Field(600, ge=1, le=86_400, description="How long one client request may take in all.")
    drain: int = Field(300, ge=0, le=86_400, description="How long a stopping service finishes what is in flight.")


class Limits(_Section):
    """What one request may cause."""

    max_upstream_calls: int = Field(64, ge=1, le=10_000)
    max_body_bytes: int = Field(4 * 1024 * 1024, ge=1024, le=1024**3)


Name = Annotated[str, Field(min_length=1, max_length=200)]


class Config(_Section):
    """A deployment of OptiLLM behind LiteLLM."""

    listen: Listen = Listen()
    upstream: Upstream = Upstream()
    model: Name = Field("jerry-xl", description="The base model that OptiLLM is started with.")
    base_models: tuple[Name, ...] = Field((), description="All that may go upstream. Default: the model alone.")
    approach: Literal["proxy", "auto"] = Field("proxy", description="How OptiLLM finds its upstream client.")
    strategies: tuple[Name, ...] = Field(("moa", "bon", "plansearch", "self_consistency"), min_length=1)
    optillm: OptiLLM = OptiLLM()
    publish: dict[Name, Name] = Field({}, description="Extra LiteLLM names for strategy models: {boost: moa-jerry-xl}.")
    plugins: tuple[Name, ...] = Field((), description="OptiLLM plugin files; copied into the release.")
    litellm: LiteLLM = LiteLLM()
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
    isolation: Literal["sealed", "loopback"] = Field(
        "sealed", description="sealed: no network and an empty root; loopback: this machine's loopback only."
    )

    @field_validator("base_models", "strategies", "plugins", mode="before")
    @classmethod
    def _sequence(cls, value: Any) -> Any:
        # strict mode takes tuples only; YAML has lists
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="before")
    @classmethod
    def _default_base_models(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("base_models"):
            return {**data, "base_models": (data.get("model", "jerry-xl"),)}
        return data

    @field_validator("model")
    @classmethod
    def _model(cls, name: str) -> str:
        if problem := models.base_model_problem(name):
            raise ValueError(f"{name!r} {problem}")
        return name

    @field_validator("base_models")
    @classmethod
    def _base_models(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        problems = [f"{name!r} {problem}" for name in names if (problem := models.base_model_problem(name))]
        if problems:
            raise ValueError("; ".join(problems))
        return tuple(dict.fromkeys(names))

    @field_validator("strategies")
    @classmethod
    def _strategies(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name in models.NOT_STRATEGIES:
                raise ValueError(f"{name!r} is not a strategy")
            if not models.is_slug(name):
                raise ValueError(f"{name!r} cannot be a strategy's name")
        return tuple(dict.fromkeys(names))

    @model_validator(mode="after")
    def _together(self) -> Config:
        problems = []
        if self.model not in self.base_models:
            problems.append(f"model {self.model!r} is not among base_models")
        if not self.plugins:  # a plugin file brings a word of its own
            for name in self.strategies:
                if name not in models.WORDS:
                    problems.append(f"strategies: OptiLLM has no {name!r}{_suggest(name, models.WORDS)}")
        for name, target in self.publish.items():
            if name in self.base_models:
                problems.append(f"publish.{name}: a base model's name would send it in a circle")
            elif models.split(target, self.strategies, self.base_models) is None:
                problems.append(f"publish.{name}: {target!r} is not an enabled strategy on a base model")
        if self.upstream.base_url == f"http://{self.listen.host}:{self.listen.port}/v1":
            problems.append("upstream.base_url is the proxy itself")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def moved(self, port: int, base_url: str, **timeouts: int) -> Config:
        """The same deployment on another port and upstream: what proofs and the demonstration run."""
        return self.model_copy(
            update={
                "listen": self.listen.model_copy(update={"port": port}),
                "upstream": self.upstream.model_copy(update={"base_url": base_url}),
                "timeouts": self.timeouts.model_copy(update=timeouts),
            }
        )

    @property
    def url(self) -> str:
        """The proxy's own base URL, as LiteLLM calls it."""
        return f"http://{self.listen.host}:{self.listen.port}/v1"

    @property
    def published(self) -> dict[str, str]:
        """LiteLLM name -> strategy model, for every enabled strategy of every base model, then `publish`."""
        own = {f"{s}-{b}": f"{s}-{b}" for b in self.base_models for s in self.strategies}
        return {**own, **self.publish}


def _suggest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _known_keys(path: tuple[Any, ...]) -> list[str]:
    """The keys that the section at `path` may hold."""
    section: Any = Config
    for step in path:
        field = section.model_fields.get(step) if isinstance(section, type) and issubclass(section, BaseModel) else None
        if field is None:
            return []
        section = field.annotation
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []


def _lines(node: yaml.Node | None, path: tuple[Any, ...] = ()) -> tuple[dict[tuple[Any, ...], int], list[Problem]]:
    """Line numbers of every key and item of a YAML tree, and its duplicate keys."""
    import yaml

    lines: dict[tuple[Any, ...], int] = {}
    problems: list[Problem] = []
    children: list[tuple[Any, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                dotted = ".".join(map(str, (*path, key.value)))
                problems.append(Problem(dotted, key.start_mark.line + 1, "stands twice in the file"))
            seen.add(key.value)
            children.append((key.value, key, value))
    elif isinstance(node, yaml.SequenceNode):
        children = [(index, value, value) for index, value in enumerate(node.value)]
    for step, anchor, value in children:
        place = (*path, step)
        lines[place] = anchor.start_mark.line + 1
        below, wrong = _lines(value, place)
        lines.update(below)
        problems += wrong
    return lines, problems


def _problem(error: Any, lines: dict[tuple[Any, ...], int]) -> Problem:
    path = tuple(error["loc"])
    line = next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), None)
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = f"unknown key{_suggest(str(path[-1]), _known_keys(path[:-1]))}"
    elif error["type"] not in ("value_error", "missing"):
        message = f"{message[:1].lower()}{message[1:]}, not {_short(error.get('input'))}"
    return Problem(".".join(map(str, path)), line, message)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def parse(text: str, source: str) -> Config:
    """YAML text -> Config. An empty text is the defaults.

    Raises:
        ConfigError: with every problem, `source` naming the file.
    """
    import yaml  # most of the time there is no file, and this is a good part of a fast command

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or "cannot be read"
        raise ConfigError(source, [Problem("", mark.line + 1 if mark else None, f"not valid YAML: {what}")]) from None
    if data is None:
        return Config()
    if not isinstance(data, dict):
        raise ConfigError(source, [Problem("", 1, "must be a mapping of keys to values")])
    lines, problems = _lines(node)
    try:
        config = Config.model_validate(data)
    except ValidationError as invalid:
        problems += [_problem(error, lines) for error in invalid.errors(include_url=False)]
    if problems:
        raise ConfigError(source, sorted(problems, key=lambda p: (p.line or 0, p.path)))
    return config


def schema() -> dict[str, Any]:
    """The JSON Schema of optictl.yaml, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
