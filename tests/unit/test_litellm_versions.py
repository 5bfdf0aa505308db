"""The range of LiteLLM's versions that was compared, and where it is written."""

from __future__ import annotations

import pytest

from optictl.litellm import versions
from testing.support import ROOT


@pytest.mark.parametrize(
    ("version", "position"),
    [
        ("1.106.1", "older"),
        ("1.106.2", "compared"),
        ("1.108.7", "compared"),
        ("v1.110.2-stable", "compared"),
        ("1.110.2.post1", "compared"),
        ("1.110.3rc1", "newer"),
        ("2.0.0", "newer"),
        ("1.99.9", "older"),
        ("nightly", None),
        ("", None),
    ],
)
def test_where_a_version_lies(version: str, position: str | None) -> None:
    assert versions.position(version) == position


def test_the_guide_names_the_range() -> None:
    text = (ROOT / "docs/guides/litellm.md").read_text()
    assert f"compared with LiteLLM {versions.COMPARED}" in text
