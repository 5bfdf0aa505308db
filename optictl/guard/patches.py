"""Patches for defects in OptiLLM. Each is small and names its defect and the affected versions.

The wheel is not changed: a patch replaces a name in a loaded module. Most defects are in parts of
OptiLLM that the guard does not use: the guard calls strategies directly.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

from . import accounting, votes


@dataclass(frozen=True)
class Patch:
    """`apply(server)` fixes `defect` in these `versions` of OptiLLM: (first, last)."""

    defect: str
    versions: tuple[str, str]
    apply: Callable[[ModuleType], None]


def _readable_arguments(server: ModuleType) -> None:
    """Read an argument with a union as its type as text.

    `parse_args` creates an argument for every field of CePO's configuration, with the annotation of
    the field as its type. One annotation is `Optional[str]`. In 3.14 that is a union, which is not
    callable, and argparse refuses it. Other fields do not change.
    """

    def fields(configuration: Any) -> list[Any]:
        return [
            SimpleNamespace(name=field.name, type=field.type if callable(field.type) else str)
            for field in dataclasses.fields(configuration)
        ]

    server.fields = fields  # type: ignore[attr-defined]


def _counted_votes(server: ModuleType) -> None:
    """Count the votes of self-consistency, and let it vote on final answers.

    It compares whole texts, which differ in wording where answers are long, and an empty text can
    win. Without the fix `votes`, its own comparison is used.
    """
    module = importlib.import_module("optillm.self_consistency")
    own = module.AdvancedSelfConsistency.cluster_similar_responses

    def cluster_similar_responses(self: Any, responses: list[Any]) -> list[list[str]]:
        owner = accounting.current.get()
        if owner is None:
            return list(own(self, responses))
        request, run = owner
        if not request.votes_on_answers:
            groups: list[list[str]] = own(self, responses)
        else:

            def similar(one: str, other: str) -> bool:
                return bool(self.calculate_similarity(one, other) >= self.similarity_threshold)

            groups = votes.clusters(responses, similar)
            if votes.changed(responses, groups):
                request.fixed.add("votes")
        run.agreement = max(map(len, groups), default=0), self.num_samples
        return groups

    module.AdvancedSelfConsistency.cluster_similar_responses = cluster_similar_responses


class _OwnConfiguration(dict[str, Any]):
    """OptiLLM's configuration, with the options of the request that reads it."""

    def __getitem__(self, name: str) -> Any:
        owner = accounting.current.get()
        own = owner[0].options.server() if owner is not None else {}
        return own[name] if name in own else super().__getitem__(name)


def _own_options(server: ModuleType) -> None:
    """Let a request have its own options of a strategy.

    OptiLLM has them in one configuration for all requests, or in defaults of functions.
    """
    server.server_config = _OwnConfiguration(server.server_config)  # type: ignore[attr-defined]
    sampler = importlib.import_module("optillm.self_consistency").AdvancedSelfConsistency
    own_responses = sampler.generate_responses

    def generate_responses(self: Any, *prompts: str) -> Any:
        self.num_samples = _option("samples", self.num_samples)
        self.similarity_threshold = _option("similarity", self.similarity_threshold)
        return own_responses(self, *prompts)

    sampler.generate_responses = generate_responses
    planner = importlib.import_module("optillm.plansearch").PlanSearch
    own_solve = planner.solve

    def solve(self: Any, problem: str, *_counts: int) -> Any:
        counts = (_option("observations", 3), _option("derived_observations", 2))
        return own_solve(self, problem, *counts)

    planner.solve = solve
    own_game, own_cepo = server.inference_time_pv_game, server.cepo

    def inference_time_pv_game(*arguments: Any, **more: Any) -> Any:
        own = {"num_rounds": _option("rounds", 2), "num_solutions": _option("solutions", 3)}
        return own_game(*arguments, **{**more, **own})

    def cepo(*arguments: Any) -> Any:
        *first, configuration, request_id = arguments
        own = {
            name: value
            for name, option in (("bestofn_n", "samples"), ("planning_n", "plans"))
            if (value := _changed_option(option)) is not None
        }
        if own.get("planning_n", 0) > configuration.planning_m:
            own["planning_m"] = own["planning_n"]  # its attempts to write them
        return own_cepo(*first, dataclasses.replace(configuration, **own), request_id)

    server.inference_time_pv_game = inference_time_pv_game  # type: ignore[attr-defined]
    server.cepo = cepo  # type: ignore[attr-defined]


def _option(name: str, default: Any) -> Any:
    """An option of the request in this thread."""
    value = _changed_option(name)
    return default if value is None else value


def _changed_option(name: str) -> Any:
    """An option of the request in this thread, None if it is as in OptiLLM."""
    owner = accounting.current.get()
    options = owner[0].options if owner is not None else None
    return options.values[name] if options is not None and options.differs(name) else None


PATCHES = (
    Patch(
        "parse_args fails on Python 3.14: a type annotation is not callable",
        ("0.3.12", "0.4.0"),
        _readable_arguments,
    ),
    Patch(
        "self_consistency votes on whole texts, and does not tell the votes",
        ("0.3.12", "0.4.0"),
        _counted_votes,
    ),
    Patch(
        "the options of a strategy are the same for all requests",
        ("0.3.12", "0.4.0"),
        _own_options,
    ),
)


def apply(server: ModuleType) -> None:
    """Apply every patch. Call this before OptiLLM parses its arguments."""
    for patch in PATCHES:
        patch.apply(server)
