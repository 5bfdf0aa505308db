"""What optictl remembers of what it wrote."""

from __future__ import annotations

import pytest

from optictl.deployment import manifest
from optictl.deployment.manifest import Manifest


def test_before_and_after_a_write_the_text_is_known_for_its_own() -> None:
    """The entry is there before the file is: a kill in between leaves either text."""
    first = Manifest().intending({"/etc/unit": "old"})
    both = first.intending({"/etc/unit": "new", "/etc/other": "x"})
    assert both.wrote("/etc/unit", "old")
    assert both.wrote("/etc/unit", "new")
    assert not both.wrote("/etc/unit", "mine")
    assert not both.wrote("/etc/unit", None)
    assert not both.intending({"/etc/unit": "newer"}).wrote("/etc/unit", "old")
    assert not both.without(["/etc/unit"]).wrote("/etc/unit", "new")


def test_it_is_read_as_it_was_written() -> None:
    wrote = Manifest().intending({"/etc/unit": "old"}).intending({"/etc/unit": "new"})
    assert manifest.parse(wrote.dump()).files == wrote.files


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"files": 1}', '{"files": {"a": 1}}'])
def test_a_broken_one_names_nothing(text: str | None) -> None:
    assert manifest.parse(text).files == {}
