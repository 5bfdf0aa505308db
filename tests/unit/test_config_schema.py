"""The configuration's JSON Schema, and the file that `init` writes, name every key."""

from __future__ import annotations

from typing import Any

import yaml

from optictl.deployment import config, render
from optictl.deployment.config import Config


def keys(tree: Any) -> set[str]:
    if not isinstance(tree, dict):
        return set()
    return {*tree, *(f"{name}.{below}" for name, value in tree.items() for below in keys(value))}


class TestSchema:
    def test_it_is_a_schema_that_names_every_key(self) -> None:
        schema = config.schema()
        assert schema["$schema"].startswith("https://json-schema.org/")
        assert schema["type"] == "object"
        assert schema["additionalProperties"] is False
        named = set()
        for name, part in schema["properties"].items():
            reference = part.get("$ref") or next((p["$ref"] for p in part.get("allOf", [])), None)
            section = schema["$defs"][reference.rpartition("/")[2]] if reference else {}
            named |= {name, *(f"{name}.{below}" for below in section.get("properties", {}))}
            assert not section or section["additionalProperties"] is False
        assert named == keys(Config().model_dump(mode="json"))

    def test_every_reference_leads_somewhere(self) -> None:
        schema = config.schema()

        def references(node: Any) -> set[str]:
            if isinstance(node, dict):
                own = {node["$ref"]} if "$ref" in node else set()
                return own.union(*map(references, node.values()))
            return set().union(*map(references, node)) if isinstance(node, list) else set()

        assert {ref.removeprefix("#/$defs/") for ref in references(schema)} == set(schema["$defs"])

    def test_its_defaults_are_those_in_force(self) -> None:
        properties = config.schema()["properties"]
        assert properties["model"]["default"] == "jerry-xl"
        assert properties["strategies"]["default"] == [
            "moa",
            "bon",
            "plansearch",
            "self_consistency",
        ]
        assert properties["listen"]["default"] == {"host": "127.0.0.1", "port": 4020}


def test_the_file_that_init_writes_names_every_key() -> None:
    """Who opens the file that `init` writes sees all that can be set."""
    assert keys(yaml.safe_load(render.configuration(Config()))) == keys(
        Config().model_dump(mode="json")
    )
