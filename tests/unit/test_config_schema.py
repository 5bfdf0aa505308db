"""The configuration's JSON Schema, and the file that `init` writes, name every key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from optictl.deployment import config, render
from optictl.deployment.config import Config
from optictl.deployment.paths import system
from optictl.operations.initialize import initialize
from optictl.releases import locks


def keys(tree: Any) -> set[str]:
    if not isinstance(tree, dict):
        return set()
    return {*tree, *(f"{name}.{below}" for name, value in tree.items() for below in keys(value))}


class TestSchema:
    def test_it_is_a_schema_that_names_every_key(self) -> None:
        schema = config.schema()
        assert schema["$schema"].startswith("https://json-schema.org/")
        assert schema["$id"].endswith("/templates/optictl.schema.json")
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

    @pytest.mark.parametrize(
        ("config_text", "valid"),
        [
            ("strategies: [moa, z3]", True),
            ("strategies: [own_plugin]", True),
            ("strategies: [Not A Name]", False),
            ("approach: other", False),
            ("listen: {host: 0.0.0.0}", False),
            ("listen: {port: 4021}", True),
            ("optillm: {profile: some}", False),
            ("isolation: loopback", True),
            ("isolation: open", False),
            ("unknown: 1", False),
        ],
    )
    def test_it_judges_a_file_as_optictl_does(self, config_text: str, valid: bool) -> None:
        schema = Draft202012Validator(config.schema())
        assert schema.is_valid(yaml.safe_load(config_text)) == valid

    def test_editors_offer_what_can_be_written(self) -> None:
        schema = config.schema()
        offered = schema["properties"]["strategies"]["items"]["anyOf"][0]["enum"]
        assert {"moa", "bon", "self_consistency", "z3"} <= set(offered)
        assert not {"none", "proxy"} & set(offered)
        assert schema["$defs"]["OptiLLM"]["properties"]["version"]["examples"] == (
            locks.shipped_versions("proxy")
        )
        choices = {
            name: part["enum"] for name, part in schema["properties"].items() if "enum" in part
        }
        assert choices == {
            "approach": ["proxy", "auto"],
            "choice": ["name", "prompt"],
            "isolation": ["sealed", "loopback"],
        }

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


def test_the_first_line_that_init_writes_names_the_schema_for_editors(tmp_path: Path) -> None:
    paths = system(tmp_path)
    initialize(paths)
    text = paths.config.read_text()
    marker = "# yaml-language-server: $schema="
    first = text.splitlines()[0]
    assert first.startswith(marker)
    schema = json.loads(Path(first.removeprefix(marker)).read_text())
    Draft202012Validator.check_schema(schema)
    assert schema == config.schema()
    assert Draft202012Validator(schema).is_valid(yaml.safe_load(text))
