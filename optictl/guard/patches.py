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
)


def apply(server: ModuleType) -> None:
    """Apply every patch. Call this before OptiLLM parses its arguments."""
    for patch in PATCHES:
        patch.apply(server)
