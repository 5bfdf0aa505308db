"""`optictl smoke`: one request to each model, and the judgement of its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from optictl.deployment import model_names, remedies
from optictl.deployment.config import Config, suggest
from optictl.deployment.paths import Paths
from optictl.errors import MissingFact, OptictlError, UnknownModel, UsageFailure
from optictl.facts.deployment import Deployment
from optictl.host import files
from optictl.host.network import Response
from optictl.proof import evidence
from optictl.requests import tracing
from optictl.requests.causes import cause
from optictl.requests.tracing import Trace
from optictl.results import Result, good


@dataclass(frozen=True)
class Keys:
    """The proxy key, and LiteLLM's key ("" if it cannot be read)."""

    proxy: str
    upstream: str


def names(config: Config, asked: list[str], every: bool) -> list[str]:
    """The models to test.

    Raises:
        OptictlError: no model was named, or this deployment does not serve one of them.
    """
    requested = [*asked, *(name for name in config.published if every)]
    if not requested:
        raise UsageFailure(
            "no model was named", remedy=f"optictl smoke {next(iter(config.published))}, or --all"
        )
    for name in requested:
        if (
            model_names.split(config.publish.get(name, name), config.strategies, config.base_models)
            is None
        ):
            raise UnknownModel(
                f"{name} is not an enabled strategy on a base model"
                f"{suggest(name, config.published)}",
                remedy=f"one of these: {', '.join(config.published)}",
            )
    return list(dict.fromkeys(requested))


def keys(paths: Paths, key_file: Path | None) -> Keys:
    """The keys of a deployment.

    Raises:
        OptictlError: the proxy key does not exist or cannot be read.
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
    """The result of a model, the answer that it is based on, and the trace if one was requested."""

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
    """Send one request for a published name to the service or to `url`.

    `timeout` is in seconds; by default it follows the configuration.
    """
    # a published name exists only in LiteLLM; the service knows the name behind it
    target = name if url else config.publish.get(name, name)
    return evidence.run(
        (url or config.url).rstrip("/"), key, target, prompt, timeout or patience(config), headers
    )


def patience(config: Config) -> float:
    """Seconds to wait for an answer: longer than the service, which reports why it gave up."""
    return config.timeouts.request + 10


@dataclass(frozen=True)
class Asking:
    """How models are tested.

    `prompt`: the question; None: the built-in one. `timeout`: seconds for a model; None: as the
    deployment's own. `url`: where to ask instead of the service.
    """

    prompt: str | None = None
    timeout: float | None = None
    url: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The service keeps the answers, to quote one in a cause. LiteLLM does not pass this on."""
        return {} if self.url else dict(tracing.CONTENT_HEADERS)


def run(
    config: Config,
    paths: Paths,
    keys: Keys,
    requested: list[str],
    say: Callable[[str], None],
    asking: Asking = Asking(),
    ended: Callable[[Smoked], None] = lambda smoked: None,
) -> list[Smoked]:
    """Test each model. First ask LiteLLM once per base model, to learn what a plain call costs.

    `ended` gets each result as soon as it is known.
    """
    text, seconds = asking.prompt or evidence.PROMPT, asking.timeout or patience(config)
    plain: dict[str, dict[str, int]] = {}
    results = []
    for name in requested:
        target = config.publish.get(name, name)
        parts = model_names.split(target, config.strategies, config.base_models)
        base_model = parts[1] if parts else config.model
        if keys.upstream and base_model not in plain:
            say(f"asking {base_model} once without a strategy")
            plain[base_model] = evidence.plain_usage(
                config, keys.upstream, text, base_model, seconds
            )
        say(f"asking {name}")
        answer = ask(config, keys.proxy, name, text, seconds, asking.url, asking.headers)
        result = evidence.judge(name, config, answer, plain.get(base_model, {}))
        result = replace(result, remedy=remedies.for_deployment(result.remedy, paths))
        results.append(Smoked(with_cause(result, config, paths, answer), answer))
        ended(results[-1])
    return results


def with_cause(result: Result, config: Config, paths: Paths, answer: Response) -> Result:
    """The result of a strategy without its full effect, with the answer that lost it.

    Unchanged if the service has no trace of the request.
    """
    codes = (result.data or {}).get("codes")
    if result.status == "pass" or not codes:
        return result
    try:
        trace = tracing.read(config, paths, keys(paths, None).proxy, answer)
    except OptictlError:
        return result
    causes = filter(None, (result.cause, cause(codes, trace)))
    return replace(result, cause="; ".join(causes))


def traced(
    config: Config, paths: Paths, smoked: Sequence[Smoked], content: bool
) -> tuple[list[Smoked], list[OptictlError]]:
    """The same results with their traces, and why some have no trace.

    `content`: whether the traces have prompts and answers.
    """
    # read the service's key again: the requests may have used LiteLLM's
    proxy_key = keys(paths, None).proxy
    with_traces, problems = [], []
    for request in smoked:
        try:
            recorded = tracing.read(config, paths, proxy_key, request.answer)
            trace = recorded if content else recorded.without_content()
        except OptictlError as problem:
            with_traces.append(request)
            problems.append(problem)
        else:
            data = {**(request.result.data or {}), "trace": trace.as_dict()}
            with_traces.append(
                replace(request, result=replace(request.result, data=data), trace=trace)
            )
    return with_traces, problems


def first_smoke(
    config: Config, paths: Paths, checked: Sequence[Result], say: Callable[[str], None]
) -> list[Result]:
    """One real request after an installation, where the service runs and no check of it failed."""
    if not good(checked) or not any(
        r.id == "process.guarded" and r.status == "pass" for r in checked
    ):
        return []
    name = list(config.published)[:1]
    return [request.result for request in run(config, paths, keys(paths, None), name, say)]
