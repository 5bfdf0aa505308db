"""The health tiers that cost no tokens: alive, locked, connected, and the upstream."""

from __future__ import annotations

from collections.abc import Iterator

from optictl.checks.engine import Finding, check
from optictl.facts.deployment import Deployment
from optictl.host.network import Response
from optictl.proof import evidence


@check(
    "health.alive",
    "The service answers",
    "GET /health is 200 with JSON",
    fault="The service does not answer",
    felt=True,
    live=True,
    requires=("config.valid", "service.active"),
    explained_by=("release.in-force", "unit.matches", "process.descriptors"),
)
def health_alive(deployment: Deployment) -> Iterator[Finding]:
    """The service answers on its port as a healthy OptiLLM does.

    How: sends GET /health without a key and waits at most 5 s.
    Why: this is the first health tier. The answer of /health is constant: it shows that the process
    lives, not that LiteLLM is reachable.
    """
    answer = deployment.health
    if answer.status == 200 and isinstance(answer.data, dict):
        yield Finding(f"200 in {answer.seconds * 1000:.0f} ms")
    else:
        yield Finding(evidence.error_message(answer), "fail", deployment.restart)


@check(
    "health.locked",
    "Requests without the key are refused",
    "GET /v1/models without a key is 401",
    fault="The service accepts requests without the proxy key",
    live=True,
    requires=("health.alive",),
    explained_by=("process.guarded",),
)
def health_locked(deployment: Deployment) -> Iterator[Finding]:
    """The service refuses clients that do not send the proxy key.

    How: sends GET /v1/models without a key and expects 401.
    Why: the service spends LiteLLM's tokens, and every local user and program can connect to a
    loopback port.
    """
    answer = deployment.without_key
    if answer.status == 401:
        yield Finding("401 without a key")
    else:
        yield Finding(
            evidence.error_message(answer), "fail", deployment.rebuild, alone=deployment.is_alone
        )


@check(
    "health.connected",
    "The service reaches LiteLLM with its key",
    "GET /v1/models lists the strategies on the base model",
    fault="The service does not reach LiteLLM",
    felt=True,
    live=True,
    requires=("health.alive", "upstream.base-model", "relay.active"),
    explained_by=("process.guarded", "key.strength"),
)
def health_connected(deployment: Deployment) -> Iterator[Finding]:
    """The path from a client through the service to LiteLLM and back works.

    How: sends GET /v1/models with the proxy key; the service asks LiteLLM for the list. No model is
    called, no token spent.
    Why: /health still answers 200 when everything behind the service is down. A key that was
    changed on one side only also shows here.
    """
    answer = deployment.models
    model = deployment.config.model
    hand_made = deployment.hand_made
    if answer.status == 401:
        key_file = hand_made.path if hand_made else deployment.paths.proxy_key
        yield Finding(
            f"the service refuses the key in {key_file}",
            "fail",
            deployment.restart,
            "the service read another key when it started",
        )
        return
    if answer.status != 200:
        yield Finding(
            evidence.error_message(answer),
            "fail",
            deployment.restart,
            f"LiteLLM itself answers at {_upstream(deployment)}",
        )
        return
    # a release of an earlier guard, and a service without one, list the base models of LiteLLM
    listed = evidence.listed_models(answer)
    names = [name for name in listed if name == model or name.endswith(f"-{model}")]
    if names:
        yield Finding(f"lists {', '.join(sorted(names))}")
    else:
        yield Finding(f"{model} is not in the list", "fail", _add_model(deployment, model))


def _upstream(deployment: Deployment) -> str:
    return deployment.config.upstream.base_url


def _upstream_remedy(deployment: Deployment, answer: Response) -> str:
    """What to do if LiteLLM does not list its models."""
    address = f"upstream.base_url in {deployment.config_path}, then {deployment.install}"
    if answer.status == 429:
        return (
            "raise the limits of OPENAI_API_KEY in LiteLLM "
            "(rpm_limit, max_parallel_requests, max_budget)"
        )
    if answer.status >= 500:
        return "read LiteLLM's log, then restart LiteLLM"
    if "WRONG_VERSION_NUMBER" in answer.error or "record layer" in answer.error:
        return f"it answers without TLS: write http:// in {address}"
    if "timed out" in answer.error:
        return (
            "LiteLLM hangs or is overloaded: read LiteLLM's log, then restart LiteLLM "
            f"(test: curl {_upstream(deployment)}/models)"
        )
    if answer.status:
        return f"another program than LiteLLM answers there: correct {address}"
    return f"start LiteLLM (test: curl {_upstream(deployment)}/models), or correct {address}"


def _add_model(deployment: Deployment, model: str) -> str:
    where = deployment.config.litellm.config or "LiteLLM's configuration"
    return f"add an entry with model_name: {model} to model_list in {where} and restart LiteLLM"


@check(
    "upstream.base-model",
    "LiteLLM serves the base models",
    "LiteLLM's /v1/models lists every base model",
    fault="LiteLLM does not serve the base models",
    requires=("config.valid", "env.upstream-key"),
)
def upstream_base_model(deployment: Deployment) -> Iterator[Finding]:
    """LiteLLM is up, accepts OptiLLM's key and lists every base model.

    How: sends GET /v1/models to LiteLLM with OPENAI_API_KEY. No model is called, no token spent.
    Why: it separates faults of LiteLLM from faults of the service.
    """
    answer = deployment.upstream_models
    # without a database, LiteLLM answers 400 to an unknown key
    if answer.status in (400, 401, 403):
        remedy = (
            f"write OPENAI_API_KEY=<a key that LiteLLM accepts> into {deployment.env_file}, "
            f"then {deployment.restart}"
        )
        yield Finding(f"LiteLLM refuses OPENAI_API_KEY ({answer.status})", "fail", remedy)
    elif answer.status != 200 or not isinstance(answer.data, dict):
        what = (
            evidence.error_message(answer)
            if answer.status != 200
            else "200 without a list of models"
        )
        yield Finding(what, "fail", _upstream_remedy(deployment, answer))
    else:
        listed = evidence.listed_models(answer)
        for model in deployment.config.base_models:
            if model not in listed:
                yield Finding(
                    f"{model} is not in LiteLLM's list", "fail", _add_model(deployment, model)
                )
        yield Finding(f"{_upstream(deployment)} lists {', '.join(deployment.config.base_models)}")
