"""The tiers of health that cost no token: alive, locked, connected, and the upstream itself."""

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
    """Something answers on the port as a healthy OptiLLM does.

    How: GET /health, without a key, at most 5 s.
    Why: the first tier of health. /health is a constant: it says that the process lives, not that LiteLLM does.
    """
    answer = deployment.health
    if answer.status == 200 and isinstance(answer.data, dict):
        yield Finding(f"200 in {answer.seconds * 1000:.0f} ms")
    else:
        yield Finding(evidence.error_message(answer), "fail", deployment.restart)


@check(
    "health.locked",
    "Nobody gets in without the key",
    "GET /v1/models without a key is 401",
    fault="Whoever is on this machine gets in without the key",
    live=True,
    requires=("health.alive",),
    explained_by=("process.guarded",),
)
def health_locked(deployment: Deployment) -> Iterator[Finding]:
    """The port is closed to whoever does not have the proxy key.

    How: GET /v1/models without a key has to be refused with 401.
    Why: the service spends LiteLLM's tokens; every user and program of this machine can reach a loopback port.
    """
    answer = deployment.ask("/v1/models", timeout=10)
    if answer.status == 401:
        yield Finding("401 without a key")
    else:
        yield Finding(
            evidence.error_message(answer), "fail", deployment.rebuild, alone=deployment.is_alone
        )


@check(
    "health.connected",
    "The service reaches LiteLLM through its own key",
    "GET /v1/models lists the base model",
    fault="The service does not reach LiteLLM",
    felt=True,
    live=True,
    requires=("health.alive", "upstream.base-model", "relay.active"),
    explained_by=("process.guarded", "key.strength"),
)
def health_connected(deployment: Deployment) -> Iterator[Finding]:
    """The way from a client with the key, through the service, to LiteLLM and back is whole.

    How: GET /v1/models with the proxy key; the service asks LiteLLM for the list. No model is asked, no token spent.
    Why: /health stays green while everything behind it is down, and a key that was changed on one side only shows here.
    """
    answer = deployment.models
    wanted = deployment.config.model
    hand_made = deployment.hand_made
    if answer.status == 401:
        key_file = hand_made.path if hand_made else deployment.paths.proxy_key
        yield Finding(
            f"the service refuses the key in {key_file}",
            "fail",
            deployment.restart,
            "it has read another one at its start",
        )
    elif answer.status != 200:
        yield Finding(
            evidence.error_message(answer),
            "fail",
            deployment.restart,
            f"LiteLLM itself answers at {_upstream(deployment)}",
        )
    elif wanted not in evidence.listed_models(answer):
        yield Finding(f"{wanted} is not in the list", "fail", _add_model(deployment, wanted))
    else:
        yield Finding(f"lists {wanted}")


def _upstream(deployment: Deployment) -> str:
    return deployment.config.upstream.base_url


def _mend_upstream(deployment: Deployment, answer: Response) -> str:
    """What to do about a LiteLLM that does not list its models."""
    address = f"upstream.base_url in {deployment.config_path}, then {deployment.install}"
    if answer.status == 429:
        return "raise the limit (rpm_limit, max_parallel_requests, max_budget) that LiteLLM gives to OPENAI_API_KEY"
    if answer.status >= 500:
        return "look into LiteLLM's log, and restart it"
    if "WRONG_VERSION_NUMBER" in answer.error or "record layer" in answer.error:
        return f"it answers without TLS: write http:// in {address}"
    if "timed out" in answer.error:
        return (
            "LiteLLM hangs or is overloaded: look into its log, and restart it; "
            f"curl {_upstream(deployment)}/models shows it"
        )
    if answer.status:
        return f"something else than LiteLLM answers there: mend {address}"
    return f"start LiteLLM, so that curl {_upstream(deployment)}/models answers; or mend {address}"


def _add_model(deployment: Deployment, model: str) -> str:
    where = deployment.config.litellm.config or "LiteLLM's configuration"
    return f"add an entry with model_name: {model} to model_list in {where} and restart LiteLLM"


@check(
    "upstream.base-model",
    "LiteLLM serves the base models",
    "its /v1/models lists each of them",
    fault="LiteLLM does not serve what OptiLLM needs",
    requires=("config.valid", "env.upstream-key"),
)
def upstream_base_model(deployment: Deployment) -> Iterator[Finding]:
    """LiteLLM is up, takes OptiLLM's key and knows every base model.

    How: GET /v1/models of LiteLLM itself, with OPENAI_API_KEY. No model is asked, no token spent.
    Why: it tells a fault of LiteLLM from one of the service.
    """
    answer = deployment.upstream_models
    if answer.status in (
        400,
        401,
        403,
    ):  # without a database, LiteLLM answers 400 to a key that it does not know
        remedy = f"write OPENAI_API_KEY=<a key that LiteLLM takes> into {deployment.env_file}, then {deployment.restart}"
        yield Finding(f"LiteLLM refuses OPENAI_API_KEY ({answer.status})", "fail", remedy)
    elif answer.status != 200 or not isinstance(answer.data, dict):
        found = (
            evidence.error_message(answer)
            if answer.status != 200
            else "200 without a list of models"
        )
        yield Finding(found, "fail", _mend_upstream(deployment, answer))
    else:
        listed = evidence.listed_models(answer)
        for model in deployment.config.base_models:
            if model not in listed:
                yield Finding(
                    f"{model} is not in LiteLLM's list", "fail", _add_model(deployment, model)
                )
        yield Finding(f"{_upstream(deployment)} lists {', '.join(deployment.config.base_models)}")
