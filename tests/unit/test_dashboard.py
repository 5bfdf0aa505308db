"""docs/grafana/optillm.json is a dashboard by Grafana's models: every key and type is known.

The models are those of grafana-foundation-sdk, which Grafana generates from its schemas; panels and
queries are judged by those of their kind. That the queries tell something is shown in
tests/integration/top.
"""

from __future__ import annotations

import copy
import json
import runpy
import sys
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

if sys.version_info < (3, 11):
    pytest.skip("grafana-foundation-sdk is for Python 3.11 and later", allow_module_level=True)

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/dashboard.py"


#: What an annotation of the Prometheus data source has besides.
#: Source: Grafana's documentation of its Prometheus data source, Annotations.
OF_PROMETHEUS = ("titleFormat", "textFormat", "step")


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    register_default_plugins()
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def board(script: dict[str, Any]) -> dict[str, Any]:
    return json.loads(script["PAGE"].read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def classes(hint: Any) -> Iterator[Any]:
    """The classes that a type is made of."""
    if inner := typing.get_args(hint):
        for one in inner:
            yield from classes(one)
    elif isinstance(hint, type):
        yield hint


@cache
def fields(of: type) -> dict[str, Any]:
    """The fields of one of Grafana's models, each with its type."""
    return {
        name: hint for name, hint in typing.get_type_hints(of.__init__).items() if name != "return"
    }  # type: ignore[misc]


@cache
def adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config={"arbitrary_types_allowed": True})


def misfits(value: Any, hint: Any, path: str) -> Iterator[str]:
    """Where a value of Grafana's models is not of its type."""
    if isinstance(value, list) and any(hasattr(one, "to_json") for one in value):
        for place, one in enumerate(value):
            yield from misfits(one, hint, f"{path}.{place}")
    elif hasattr(value, "to_json"):
        if not isinstance(value, tuple(classes(hint))):
            yield f"{path}: {type(value).__name__}"
        for name, type_of in fields(type(value)).items():
            yield from misfits(getattr(value, name), type_of, f"{path}.{name}")
    else:
        try:
            adapter(hint).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            yield f"{path}: {error.errors()[0]['msg']}"


def problems(board: dict[str, Any]) -> list[str]:
    """What Grafana's models have against a dashboard."""
    board = copy.deepcopy(board)
    for annotation in board["annotations"]["list"]:
        # of the data source: Grafana's models have only the keys that all annotations share
        for key in OF_PROMETHEUS:
            annotation.pop(key, None)
    parsed = Dashboard.from_json(copy.deepcopy(board))
    known = json.loads(JSONEncoder().encode(parsed))
    return [*lost(board, known, "dashboard"), *misfits(parsed, Dashboard, "dashboard")]


def lost(given: Any, known: Any, path: str) -> Iterator[str]:
    """What of a JSON text its model knows nothing of, or holds to be missing."""
    if isinstance(given, dict) and isinstance(known, dict):
        yield from (f"{path}.{key}: not the same keys" for key in given.keys() ^ known.keys())
        for key in given.keys() & known.keys():
            yield from lost(given[key], known[key], f"{path}.{key}")
    elif isinstance(given, list) and isinstance(known, list) and len(given) == len(known):
        for place, pair in enumerate(zip(given, known, strict=True)):
            yield from lost(*pair, f"{path}.{place}")
    elif given != known:
        yield f"{path}: {given!r} became {known!r}"


def test_the_file_is_in_step(script: dict[str, Any]) -> None:
    """After a change of the script: uv run scripts/dashboard.py"""
    assert script["PAGE"].read_text(encoding="utf-8") == script["page"]()


def test_grafanas_models_take_it(board: dict[str, Any]) -> None:
    assert problems(board) == []


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ((), "titel", "misspelt"),
        (("annotations", "list", 0), "expression", "up"),
        (("annotations", "list", 0), "enable", "yes"),
        ((), "schemaVersion", "41"),
        ((), "graphTooltip", 7),
        (("panels", 8), "title", 5),
        (("panels", 8, "gridPos"), "w", "8"),
        (("panels", 8, "options"), "legnd", {}),
        (("panels", 8, "options", "tooltip"), "mode", "some"),
        (("panels", 8, "targets", 0), "expression", "up"),
        (("panels", 8, "targets", 0), "expr", None),
        (("panels", 8, "fieldConfig", "defaults"), "unit", 1),
        (("panels", 8, "fieldConfig", "defaults", "custom"), "fillOpacity", "10"),
        (("panels", 0, "options"), "textMode", "nam"),
        (("templating", "list", 1), "refresh", 3),
        (("templating", "list", 1), "multi", "yes"),
    ],
)
def test_a_fault_is_found(
    board: dict[str, Any], place: tuple[str | int, ...], key: str, value: object
) -> None:
    inside: Any = board
    for step in place:
        inside = inside[step]
    inside[key] = value
    assert problems(board) != []


def test_panels_lie_beside_each_other_and_each_says_what_it_shows(board: dict[str, Any]) -> None:
    taken = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["type"] == "row" or (panel["title"] and panel["description"])
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    sources = {
        json.dumps(panel["datasource"]) for panel in board["panels"] if panel["type"] != "row"
    }
    assert sources == {json.dumps({"type": "prometheus", "uid": "${datasource}"})}
