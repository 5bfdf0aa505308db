"""`optictl smoke`: which models, with which keys, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from optictl.deployment import model_names
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import MissingFact, OptictlError, UnknownModel
from optictl.facts.deployment import Deployment
from optictl.host import files
from optictl.host.network import Response
from optictl.proof import evidence
from optictl.requests import tracing
from optictl.requests.tracing import Trace
from optictl.results import Result


@dataclass(frozen=True)
class Keys:
    """The proxy key, and LiteLLM's key where it can be read ("" otherwise)."""

    proxy: str
    upstream: str


def names(config: Config, asked: list[str], every: bool) -> list[str]:
    """The models to smoke.

    Raises:
        OptictlError: none was named, or one is not served by this deployment.
    """
    wanted = [*asked, *(name for name in config.published if every)]
    if not wanted:
        raise OptictlError(
            "no model was named", remedy=f"optictl smoke {next(iter(config.published))}, or --all"
        )
    for name in wanted:
        if (
            model_names.split(config.publish.get(name, name), config.strategies, config.base_models)
            is None
        ):
            raise UnknownModel(
                f"{name} is not an enabled strategy on a base model",
                remedy=f"one of these: {', '.join(config.published)}",
            )
    return list(dict.fromkeys(wanted))


def keys(paths: Paths, key_file: Path | None) -> Keys:
    """The keys of a deployment.

    Raises:
        OptictlError: there is no proxy key, or it may not be read.
    """
    deployment = Deployment(paths)
    try:
        proxy = deployment.proxy_key if key_file is None else (files.read(key_file) or "").strip()
    except MissingFact as missing:
        raise MissingFact(str(missing), remedy=paths.command("init")) from None
    try:
        return Keys(proxy, deployment.upstream_key)
    except (MissingFact, PermissionError):
        return Keys(proxy, "")


@dataclass(frozen=True)
class Smoked:
    """A model's result, the answer that it was judged by, and what happened meanwhile, where that was asked for."""

    result: Result
    answer: Response
    trace: Trace | None = None


def ask(
    config: Config,
    key: str,
    name: str,
    prompt: str,
    timeout: float | None,
    url: str | None,
    headers: Mapping[str, str],
) -> Response:
    """One request for a published name, at the proxy or at `url`; `timeout` in seconds, by default the deployment's own."""
    # a published name exists only in LiteLLM; the proxy itself knows what it stands for
    target = name if url else config.publish.get(name, name)
    return evidence.run(
        (url or config.url).rstrip("/"), key, target, prompt, timeout or patience(config), headers
    )


def patience(config: Config) -> float:
    """Seconds to wait for an answer: the service gives up first, and says why."""
    return config.timeouts.request + 10


def run(
    config: Config,
    keys: Keys,
    wanted: list[str],
    prompt: str | None,
    timeout: float | None,
    url: str | None,
    say: Callable[[str], None],
    headers: Mapping[str, str] = {},
) -> list[Smoked]:
    """Smoke each model; before that, ask LiteLLM once per base model what a plain call costs."""
    text, seconds = prompt or evidence.PROMPT, timeout or patience(config)
    plain: dict[str, dict[str, int]] = {}
    results = []
    for name in wanted:
        _, base_model = model_names.split(
            config.publish.get(name, name), config.strategies, config.base_models
        ) or (
            "",
            config.model,
        )
        if keys.upstream and base_model not in plain:
            say(f"asking {base_model} once without a strategy")
            plain[base_model] = evidence.plain_usage(
                config, keys.upstream, text, base_model, seconds
            )
        say(f"asking {name}")
        answer = ask(config, keys.proxy, name, text, seconds, url, headers)
        results.append(
            Smoked(evidence.judge(name, config, answer, plain.get(base_model, {})), answer)
        )
    return results


def traced(
    config: Config, paths: Paths, smoked: Sequence[Smoked]
) -> tuple[list[Smoked], list[OptictlError]]:
    """The same with their traces, in the results' data and by themselves, and why some have none."""
    # the service's own: the key that was sent may have been LiteLLM's
    proxy_key = keys(paths, None).proxy
    found, problems = [], []
    for one in smoked:
        try:
            trace = tracing.read(config, paths, proxy_key, one.answer)
        except OptictlError as problem:
            found.append(one)
            problems.append(problem)
        else:
            data = {**(one.result.data or {}), "trace": trace.as_dict()}
            found.append(replace(one, result=replace(one.result, data=data), trace=trace))
    return found, problems
