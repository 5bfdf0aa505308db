"""The software bill of materials of a lock."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from optictl.releases import locks
from optictl.releases.sbom import document

LOCK = """# a lock
Main==1.0 ; sys_platform == 'linux' \\
    --hash=sha256:aa
An_Other==2.0 \\
    --hash=sha256:bb \\
    --hash=sha256:cc
"""
FILES = ("optictl.txt", *sorted(p.name for p in locks.shipped_locks().glob("*-proxy.txt")))


def problem(made: dict[str, Any]) -> object:
    """What CycloneDX's own schema says of a document."""
    return JsonStrictValidator(SchemaVersion.V1_5).validate_str(json.dumps(made))


@pytest.mark.parametrize("name", FILES)
def test_it_is_valid_and_has_every_package(name: str) -> None:
    lock = (locks.shipped_locks() / name).read_text()
    program = "optictl" if name == "optictl.txt" else "optillm"
    version = "0.1.0" if program == "optictl" else name.split("-")[1]
    made = document(program, version, lock)
    assert problem(made) is None
    named = {f"{c['name']}=={c['version']}" for c in made["components"]}
    assert named | {f"{program}=={version}"} == {
        *re.findall(r"^[\w.-]+==[\w.]+", lock, re.M),
        f"{program}=={version}",
    }


def test_the_schema_sees_what_is_wrong() -> None:
    made = document("main", "1.0", LOCK)
    made["components"][0]["type"] = "no type"
    assert problem(made) is not None


def test_the_program_itself_is_no_part_of_itself() -> None:
    made = document("main", "1.0", LOCK)
    assert made["metadata"]["component"]["purl"] == "pkg:pypi/main@1.0"
    (part,) = made["components"]
    assert part["purl"] == "pkg:pypi/an-other@2.0"
    assert [r["hashes"][0]["content"] for r in part["externalReferences"]] == ["bb", "cc"]
    assert made["dependencies"][0] == {"ref": "pkg:pypi/main@1.0", "dependsOn": [part["purl"]]}


def test_the_same_lock_makes_the_same_document() -> None:
    assert document("main", "1.0", LOCK) == document("main", "1.0", LOCK)
    other = document("main", "1.0", LOCK.replace("2.0", "2.1"))
    assert other["serialNumber"] != document("main", "1.0", LOCK)["serialNumber"]
