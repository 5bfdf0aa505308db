"""The supported Pythons: one constant, what else names them, and a wheel of every pin for each."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

from optictl.host.uv import NEWEST, OLDEST, SUPPORTED
from optictl.host.uv_settings import parse_toml
from optictl.releases import locks
from optictl.releases.targets import Target, pins, target
from testing.support import ROOT

COLLECTION = ROOT / "optictl/collections/ansible_collections/optictl/optillm"
#: The locks of OptiLLM without the packages that a proxy does not need. uv.lock has the OptiLLM of
#: the first one.
PROXY_LOCKS = [locks.lock_name(version, "proxy") for version in locks.shipped_versions("proxy")]
PYTHONS = [(3, minor) for minor in range(OLDEST[1], NEWEST[1] + 1)]


def claims(text: str) -> set[str]:
    """Every "3.N to 3.M" of a text."""
    return set(re.findall(r"3\.\d+ to 3\.\d+", text))


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        *(f"docs/{name}.md" for name in ("quick-start", "guides/fleet", "reference/preflight")),
        COLLECTION / "roles/optillm_proxy/README.md",
    ],
)
def test_a_page_claims_what_the_constant_says(page: Path) -> None:
    assert claims((ROOT / page).read_text()) == {SUPPORTED}


def test_the_project_is_installed_on_the_supported_ones_only() -> None:
    project: dict[str, Any] = parse_toml((ROOT / "pyproject.toml").read_text())["project"]
    lock = parse_toml((ROOT / "uv.lock").read_text())
    expected = SpecifierSet(f">={OLDEST[0]}.{OLDEST[1]},<{NEWEST[0]}.{NEWEST[1] + 1}")
    assert SpecifierSet(project["requires-python"]) == expected
    assert SpecifierSet(lock["requires-python"]) == expected


def test_the_module_that_runs_without_optictl_has_the_same_bounds() -> None:
    tree = ast.parse((COLLECTION / "plugins/modules/optillm_host_info.py").read_text())
    literals = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in ("OLDEST", "NEWEST")
    }
    assert literals == {"OLDEST": OLDEST, "NEWEST": NEWEST}


def wheels() -> dict[str, str]:
    """SHA-256 -> the file name, for every wheel of uv.lock."""
    packages = parse_toml((ROOT / "uv.lock").read_text())["package"]
    found = (wheel for package in packages for wheel in package.get("wheels", []))
    return {
        wheel["hash"].removeprefix("sha256:"): wheel["url"].rpartition("/")[2] for wheel in found
    }


def tags(of: Target) -> Iterator[Tag]:
    yield from cpython_tags(of.python, platforms=of.platforms)
    yield from compatible_tags(of.python, f"cp{of.python[0]}{of.python[1]}", of.platforms)


@pytest.mark.parametrize("python", PYTHONS, ids=lambda python: ".".join(map(str, python)))
@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
@pytest.mark.parametrize("lock", ["optictl.txt", *PROXY_LOCKS])
def test_every_pin_has_a_wheel(lock: str, architecture: str, python: tuple[int, int]) -> None:
    """On the oldest C library that is supported, Ubuntu 22.04's."""
    of = target(architecture, python, (2, 35))
    names, fitting = wheels(), set(tags(of))
    wanted = pins((locks.shipped_locks() / lock).read_text(), of)
    missing = {
        pin.name
        for pin in wanted
        if not any(
            fitting & parse_wheel_filename(names[digest])[3]
            for digest in pin.digests & names.keys()
        )
    }
    # the one package of a later lock with another version in uv.lock; its wheel is for any platform
    assert missing == (set() if lock in ("optictl.txt", PROXY_LOCKS[0]) else {"optillm"})
    assert len(wanted) > 15
