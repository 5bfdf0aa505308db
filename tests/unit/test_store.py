"""Releases on the disk: which is active, which is the previous one, which are removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from optictl.deployment import paths
from optictl.deployment.paths import Paths
from optictl.host import files
from optictl.releases import store
from testing import release_records


@pytest.fixture
def places(tmp_path: Path) -> Paths:
    """A deployment with three built releases, none of them active."""
    places = paths.system(tmp_path)
    for name in ("a", "b", "c"):
        release_records.write(places.releases / name)
    return places


def test_a_switch_names_the_release_before_it(places: Paths) -> None:
    for name in ("a", "b"):
        store.switch(places, name)
    assert (store.active_release(places), store.previous(places)) == ("b", "a")


def test_a_switch_to_the_active_release_keeps_the_previous_one(places: Paths) -> None:
    for name in ("a", "b", "b"):
        store.switch(places, name)
    assert (store.active_release(places), store.previous(places)) == ("b", "a")


def test_a_link_that_leads_elsewhere_is_no_release(places: Paths, tmp_path: Path) -> None:
    release_records.write(tmp_path / "elsewhere")
    files.replace_link(places.current, tmp_path / "elsewhere")
    assert store.active_release(places) is None


@pytest.mark.parametrize("keep", [0, 1])
def test_the_active_release_is_kept_whatever_the_number(keep: int) -> None:
    assert store.surplus(["a", "b", "c"], keep, None, None) == ["b", "a"]
    assert store.surplus(["a", "b", "c"], keep, "a", None) == ["c", "b"]
