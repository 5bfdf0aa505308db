"""The tiers of health that cost no token: alive, locked, connected, and the upstream itself."""

from __future__ import annotations

from collections.abc import Iterator

from optictl.checks.engine import Finding, check
from optictl.facts.deployment import Site
from optictl.host.network import Answer
from optictl.proof import evidence


@check(
    "health.alive",
    "The service answers",
    "GET /health is 200 with JSON",
    fault="The service does not answer",
    felt=True,
    live=True,
    presupposes=("config.valid", "service.active"),
    consequence_of=("release.in-force", "unit.matches", "process.descriptors"),
)
def health_alive(site: Site) -> Iterator[Finding]:
    """Something answers on the port as a healthy OptiLLM does.

    How: GET /health, without a key, at most 5 s.
    Why: the first tier of health. /health is a constant: it says that the process lives, not that LiteLLM does.
    """
    answer = site.health
    if answer.status == 200 and isinstance(answer.data, dict):
        yield Finding(f"200 in {answer.seconds * 1000:.0f} ms")
    else:
        yield Finding(evidence.error_message(answer), "fail", site.restart)


@check(
    "health.locked",
    "Nobody gets in without the key",
    "GET /v1/models without a key is 401",
    fault="Whoever is on this machine gets in without the key",
    live=True,
    presupposes=("health.alive",),
    consequence_of=("process.guarded",),
)
def health_locked(site: Site) -> Iterator[Finding]:
    """The port is closed to whoever does not have the proxy key.

    How: GET /v1/models without a key has to be refused with 401.
    Why: the service spends LiteLLM's tokens; every user and program of this machine can reach a loopback port.
    """
    answer = site.ask("/v1/models", timeout=10)
    if answer.status == 401:
        yield Finding("401 without a key")
    else:
        yield Finding(evidence.error_message(answer), "fail", site.rebuild, alone=site.is_alone)


@check(
    "health.connected",
    "The service reaches LiteLLM through its own key",
    "GET /v1/models lists the base model",
    fault="The service does not reach LiteLLM",
    felt=True,
    live=True,
    presupposes=("health.alive", "upstream.base-model", "relay.active"),
    consequence_of=("process.guarded", "key.strength"),
)
def health_connected(site: Site) -> Iterator[Finding]:
    """The way from a client with the key, through the service, to LiteLLM and back is whole.

    How: GET /v1/models with the proxy key; the service asks LiteLLM for the list. No model is asked, no token spent.
    Why: /health stays green while everything behind it is down, and a key that was changed on one side only shows here.
    """
    answer = site.models
    wanted = site.config.model
    if answer.status == 401:
        yield Finding(
            f"the service refuses the key in {site.hand_made.path if site.hand_made else site.paths.proxy_key}",
            "fail",
            site.restart,
            "it has read another one at its start",
        )
    elif answer.status != 200:
        yield Finding(evidence.error_message(answer), "fail", site.restart, f"LiteLLM itself answers at {_upstream(site)}")
    elif wanted not in evidence.listed_models(answer):
        yield Finding(f"{wanted} is not in the list", "fail", _add_model(site, wanted))
    else:
        yield Finding(f"lists {wanted}")


def _upstream(site: Site) -> str:
    return site.config.upstream.base_url


def _mend_upstream(site: Site, answer: Answer) -> str:
    """What to do about a LiteLLM that does not list its models."""
    address = f"upstream.base_url in {site.config_path}, then {site.install}"
    if answer.status == 429:
        return "raise the limit (rpm_limit, max_parallel_requests, max_budget) that LiteLLM gives to OPENAI_API_KEY"
    if answer.status >= 500:
        return "look into LiteLLM's log, and restart it"
    if "WRONG_VERSION_NUMBER" in answer.error or "record layer" in answer.error:
        return f"it answers without TLS: write http:// in {address}"
    if "timed out" in answer.error:
        return f"LiteLLM hangs or is overloaded: look into its log, and restart it; curl {_upstream(site)}/models shows it"
    if answer.status:
        return f"something else than LiteLLM answers there: mend {address}"
    return f"start LiteLLM, so that curl {_upstream(site)}/models answers; or mend {address}"


def _add_model(site: Site, model: str) -> str:
    where = site.config.litellm.config or "LiteLLM's configuration"
    return f"add an entry with model_name: {model} to model_list in {where} and restart LiteLLM"


@check(
    "upstream.base-model",
    "LiteLLM serves the base models",
    "its /v1/models lists each of them",
    fault="LiteLLM does not serve what OptiLLM needs",
    presupposes=("config.valid", "env.upstream-key"),
)
def upstream_base_model(site: Site) -> Iterator[Finding]:
    """LiteLLM is up, takes OptiLLM's key and knows every base model.

    How: GET /v1/models of LiteLLM itself, with OPENAI_API_KEY. No model is asked, no token spent.
    Why: it tells a fault of LiteLLM from one of the service.
    """
    answer = site.upstream_models
    if answer.status in (400, 401, 403):  # without a database, LiteLLM answers 400 to a key that it does not know
        remedy = f"write OPENAI_API_KEY=<a key that LiteLLM takes> into {site.env_file}, then {site.restart}"
        yield Finding(f"LiteLLM refuses OPENAI_API_KEY ({answer.status})", "fail", remedy)
    elif answer.status != 200 or not isinstance(answer.data, dict):
        found = evidence.error_message(answer) if answer.status != 200 else "200 without a list of models"
        yield Finding(found, "fail", _mend_upstream(site, answer))
    else:
        listed = evidence.listed_models(answer)
        for model in site.config.base_models:
            if model not in listed:
                yield Finding(f"{model} is not in LiteLLM's list", "fail", _add_model(site, model))
        yield Finding(f"{_upstream(site)} lists {', '.join(site.config.base_models)}")
