"""The locks that optictl ships: which versions have one, and that the documents name them."""

from __future__ import annotations

import re

import pytest

from optictl.deployment.config import Config
from optictl.releases import locks
from scripts import lock as script
from testing.support import ROOT

SHIPPED = locks.shipped_versions("proxy")


def test_the_script_writes_every_lock_that_is_shipped() -> None:
    assert [Config().optillm.version, *script.LATER] == SHIPPED
    assert SHIPPED == ["0.3.12", "0.3.13", "0.3.22", "0.4.0"]


@pytest.mark.parametrize("version", SHIPPED)
def test_a_lock_pins_its_version_with_hashes(version: str) -> None:
    text = (locks.shipped_locks() / locks.lock_name(version, "proxy")).read_text()
    assert text.startswith(f"# optillm {version}, profile proxy;")
    assert re.search(rf"^optillm=={re.escape(version)}[^\n]* \\\n    --hash=sha256:", text, re.M)


@pytest.mark.parametrize("page", ["docs/guides/upgrade.md", "docs/explanation/architecture.md"])
def test_a_page_names_the_versions_with_a_lock(page: str) -> None:
    versions = f"{', '.join(SHIPPED[:-1])} and {SHIPPED[-1]}"
    assert versions in (ROOT / page).read_text()
