"""The tiers of health that cost no token: alive, locked, connected, and the upstream itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from optictl import smoke
from optictl.checks.registry import Finding, check
from optictl.checks.site import Site
from optictl.host.network import Answer


def _listed(answer: Answer) -> set[str]:
    data: Any = answer.data
    models = data.get("data") if isinstance(data, dict) else None
    return (
        {m["id"] for m in models if isinstance(m, dict) and isinstance(m.get("id"), str)} if isinstance(models, list) else set()
    )


@check("health.alive", "The service answers", "GET /health is 200 with JSON", live=True)
def health_alive(site: Site) -> Iterator[Finding]:
    answer = site.health
    if answer.status == 200 and isinstance(answer.data, dict):
        yield Finding(f"200 in {answer.seconds * 1000:.0f} ms")
    else:
        yield Finding(
            smoke.error_message(answer),
            "fail",
            f"start it: {site.paths.command('run')}, or systemctl start optillm-proxy (journalctl -u optillm-proxy)",
        )


@check("health.locked", "Nobody gets in without the key", "GET /v1/models without a key is 401", live=True)
def health_locked(site: Site) -> Iterator[Finding]:
    site.live  # noqa: B018  (nothing to judge where nothing listens)
    answer = site.ask("/v1/models", timeout=10)
    if answer.status == 401:
        yield Finding("401 without a key")
    else:
        yield Finding(smoke.error_message(answer), "fail", site.ours)


@check("health.connected", "The service reaches LiteLLM through its own key", "GET /v1/models lists the base model", live=True)
def health_connected(site: Site) -> Iterator[Finding]:
    site.live  # noqa: B018
    answer = site.models
    wanted = site.config.model
    if answer.status == 401:
        yield Finding(
            "the service refuses the proxy key", "fail", "restart the service: the key on disk is not the one it read"
        )
    elif answer.status != 200:
        yield Finding(
            smoke.error_message(answer), "fail", f"see upstream.base-model: is LiteLLM up at {site.config.upstream.base_url}?"
        )
    elif wanted not in _listed(answer):
        yield Finding(f"{wanted} is not in the list", "fail", f"add {wanted} to LiteLLM's model_list")
    else:
        yield Finding(f"lists {wanted}")


@check("upstream.base-model", "LiteLLM serves the base models", "its /v1/models lists each of them")
def upstream_base_model(site: Site) -> Iterator[Finding]:
    answer = site.upstream_models
    base_url = site.config.upstream.base_url
    if answer.status in (401, 403):
        yield Finding(
            f"LiteLLM refuses OPENAI_API_KEY ({answer.status})", "fail", f"write a valid key of LiteLLM into {site.paths.env}"
        )
    elif answer.status != 200:
        yield Finding(smoke.error_message(answer), "fail", f"start LiteLLM at {base_url}, or mend upstream.base_url")
    else:
        listed = _listed(answer)
        for model in site.config.base_models:
            if model not in listed:
                yield Finding(f"{model} is not in LiteLLM's list", "fail", f"add {model} to LiteLLM's model_list")
        yield Finding(f"{base_url} lists {', '.join(site.config.base_models)}")
