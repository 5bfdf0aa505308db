"""optictl.yaml as a typed model: its keys, and what they have to agree on."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, WithJsonSchema, field_validator
from pydantic_core import PydanticCustomError

from optictl.deployment import model_names
from optictl.deployment.config_sections import (
    Effect,
    Limits,
    Listen,
    LiteLLM,
    Monitoring,
    OptiLLM,
    Releases,
    Section,
    Streaming,
    Timeouts,
    Upstream,
)
from optictl.guard import strategy_options

Place = int | str | tuple[str, ...] | None


def _wrong(problems: list[tuple[Place, str]]) -> PydanticCustomError:
    """An error with several problems of one value: (place, text).

    The place is an item, or a path of keys; None for the value.
    """
    return PydanticCustomError(
        "several", "{text}", {"text": "; ".join(text for _, text in problems), "problems": problems}
    )


Name = Annotated[str, Field(min_length=1, max_length=200)]

#: The address of the JSON Schema: its identity, wherever it is read from.
SCHEMA_ID = "https://example.com/optictl/raw/main/templates/optictl.schema.json"


def _offer_strategies(schema: dict[str, Any]) -> None:
    """Let editors offer the known strategies. A plugin file adds others."""
    known = sorted(model_names.WORDS - model_names.NOT_STRATEGIES.keys())
    schema["anyOf"] = [{"enum": known}, {"pattern": "^[a-z0-9][a-z0-9_]*$"}]


StrategyName = Annotated[Name, Field(json_schema_extra=_offer_strategies)]


def _number_schema(option: strategy_options.Option) -> dict[str, Any]:
    kind = "integer" if option.is_whole else "number"
    number = {"type": kind, "minimum": option.least, "maximum": option.most}
    ends = {"default": number, "min": number, "max": number}
    bounds = {"type": "object", "properties": ends, "additionalProperties": False}
    about = f"{option.about}; OptiLLM: {option.default:g}"
    return {"description": about, "anyOf": [number, bounds]}


def _options_schema() -> dict[str, Any]:
    """The JSON Schema of `strategy_options`."""
    strategies = {
        strategy: {
            "type": "object",
            "properties": {name: _number_schema(option) for name, option in options.items()},
            "additionalProperties": False,
        }
        for strategy, options in strategy_options.OPTIONS.items()
    }
    return {"type": "object", "properties": strategies, "additionalProperties": False}


class Config(Section):
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
    strategies: tuple[StrategyName, ...] = Field(
        ("moa", "bon", "plansearch", "self_consistency"),
        description="The strategies that requests may use.",
    )
    choice: Literal["name", "prompt"] = Field(
        "name",
        description="What chooses the strategy. name: the model name only; prompt: also "
        "<optillm_approach> tags in messages and the body field optillm_approach.",
    )
    strategy_options: Annotated[dict[str, Any], WithJsonSchema(_options_schema())] = Field(
        {},
        description="Options of strategies: {bon: {samples: 5}}. In place of a number, "
        "{default: 5, min: 2, max: 8} also bounds what a request may choose.",
    )
    publish: dict[Name, Name] = Field(
        {}, description="Extra LiteLLM names for strategy models: {boost: moa-jerry-xl}."
    )
    releases: Releases = Releases()
    litellm: LiteLLM = LiteLLM()
    monitoring: Monitoring = Monitoring()
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
    streaming: Streaming = Streaming()
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
        problems: list[tuple[Place, str]] = [
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
        problems: list[tuple[Place, str]] = []
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

    @field_validator("strategy_options")
    @classmethod
    def _strategy_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        if problems := strategy_options.deployment_problems(options):
            raise _wrong([*problems])
        return options

    @field_validator("publish")
    @classmethod
    def _publish(cls, names: dict[str, str], seen: ValidationInfo) -> dict[str, str]:
        if not {"strategies", "base_models"} <= seen.data.keys():
            return names  # those fields have their own problems
        strategies, base_models = seen.data["strategies"], seen.data["base_models"]
        problems: list[tuple[Place, str]] = []
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


def schema() -> dict[str, Any]:
    """The JSON Schema of optictl.yaml."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **Config.model_json_schema(),
    }
