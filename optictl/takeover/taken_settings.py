"""The flags and variables of a hand-made service that become settings of optictl.yaml. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from optictl.deployment import model_names
from optictl.deployment.config import Config
from optictl.guard import invariants
from optictl.takeover.handmade import HandMade, redacted
from optictl.takeover.taken import NotTaken, Setting

_Part = tuple[list[Setting], list[NotTaken]]


def _from(service: HandMade, name: str, words: str) -> str:
    return service.where.get(name) or words


def listen(service: HandMade, _: Sequence[str]) -> _Part:
    settings, not_taken = [], []
    if service.port is not None:
        where = _from(service, "port", "OptiLLM's default: the unit has no --port")
        settings.append(Setting("listen.port", service.port, where))
    if service.host not in ("", "127.0.0.1", "localhost"):
        not_taken.append(
            NotTaken(
                f"--host {service.host}",
                "the proxy listens on 127.0.0.1 only: other machines reach it through LiteLLM",
                "point clients on other machines at LiteLLM",
            )
        )
    return settings, not_taken


def upstream(service: HandMade, _: Sequence[str]) -> _Part:
    url, where = service.base_url.rstrip("/"), service.where.get("base_url", "")
    remedy = "write upstream.base_url, LiteLLM's address on this machine, into optictl.yaml"
    if not url:
        why = "OptiLLM then calls api.openai.com; a deployment calls LiteLLM on this machine only"
        return [], [NotTaken("no --base-url", why, remedy)]
    if not (problem := invariants.upstream_problem(url)):
        return [Setting("upstream.base_url", url, where)], []
    if problem == "must end in /v1" and not invariants.upstream_problem(f"{url}/v1"):
        return [Setting("upstream.base_url", f"{url}/v1", f"{where}, with /v1 added")], []
    return [], [NotTaken(f"--base-url {redacted(url)}", f"it {problem}", remedy)]


def base_models(service: HandMade, listed: Sequence[str]) -> _Part:
    """The base models: --model, targets of model_map, and those of LiteLLM's strategy models."""
    settings, not_taken = [], []
    where = _from(service, "model", "")
    names: dict[str, str] = {service.model: where} if where else {}
    for provider in service.own_providers:
        names.update(
            dict.fromkeys(provider.model_map.values(), f"model_map of provider {provider.name}")
        )
    for _, base in _published(listed):
        names.setdefault(base, "LiteLLM's list: it has strategy models of it")
    usable = {
        name: place for name, place in names.items() if not model_names.base_model_problem(name)
    }
    for name in names.keys() - usable.keys():
        problem = model_names.base_model_problem(name)
        remedy = "give it another name in LiteLLM, and write that into base_models"
        not_taken.append(NotTaken(f"model {name}", f"the name {problem}", remedy))
    if not where:
        why = f"OptiLLM's default is {service.model}"
        not_taken.append(
            NotTaken(
                "no --model", why, "write the base model into optictl.yaml: model and base_models"
            )
        )
    if usable:
        first = service.model if service.model in usable else next(iter(usable))
        settings.append(Setting("model", first, usable[first]))
        ordered = [first, *(name for name in usable if name != first)]
        places = dict.fromkeys(usable[name] for name in ordered)
        settings.append(Setting("base_models", ordered, "; ".join(places)))
    return settings, not_taken


def _published(listed: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(strategy, base model) of each strategy model whose base model LiteLLM lists too."""
    for name in listed:
        strategies, base = model_names.parse(name)
        if (
            len(strategies) == 1
            and base in listed
            and strategies[0] not in model_names.NOT_STRATEGIES
        ):
            yield strategies[0], base


def strategies(service: HandMade, listed: Sequence[str]) -> _Part:
    """The approach, and the default strategies with those that clients use."""
    settings, not_taken = _approach(service)
    sources: dict[str, str] = {}
    if service.approach not in ("", "none", "proxy", "auto"):
        sources[service.approach] = service.where.get("approach", "")
    for strategy, _ in _published(listed):
        sources.setdefault(strategy, "LiteLLM's list")
    default = Config().strategies
    extra = [name for name in sources if name not in default and name in model_names.WORDS]
    for name in extra:
        if what := model_names.CODE_EXECUTION.get(name):
            remedy = f"to allow it, add {name} to strategies and set allow_code_execution: true"
            not_taken.append(NotTaken(f"strategy {name}", f"it {what}", remedy))
    if safe := [name for name in extra if name not in model_names.CODE_EXECUTION]:
        places = dict.fromkeys(sources[name] for name in safe)
        where = f"the default, and {', '.join(safe)}: {'; '.join(places)}"
        settings.append(Setting("strategies", [*default, *safe], where))
    return settings, not_taken


def _approach(service: HandMade) -> _Part:
    """The approach. One that names a strategy becomes `auto`: the model name selects it."""
    approach, where = service.approach, service.where.get("approach", "")
    if not approach:
        return [], []
    if approach in ("proxy", "auto"):
        where = where or "OptiLLM's default: the unit has no --approach"
        return [Setting("approach", approach, where)], []
    if approach == "none":
        why = "the guard refuses a name without a strategy"
        remedy = "send plain requests to LiteLLM itself"
        return [], [NotTaken("--approach none", why, remedy)]
    why = "it runs for every request; in a deployment the model name selects the strategy"
    return (
        [Setting("approach", "auto", f"{where}, which names one strategy")],
        [NotTaken(f"--approach {approach}", why, f"use {approach}-{service.model}")],
    )
