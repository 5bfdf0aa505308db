"""Releases on the disk: which is active, which is the previous one, which are removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from optictl.deployment import paths
from optictl.deployment.paths import Paths
from optictl.host import files
from optictl.releases import failures, store
from testing import release_records


@pytest.fixture
def places(tmp_path: Path) -> Paths:
    """A deployment with three built releases, none of them active."""
    places = paths.system(tmp_path)
    for name in ("a", "b", "c"):
        release_records.write(places.releases / name)
    return places


def activate(places: Paths, *names: str) -> None:
    """Activate and prove releases, one after the other."""
    for name in names:
        store.switch(places, name)
        store.confirm(places)


def test_a_switch_names_the_release_before_it(places: Paths) -> None:
    activate(places, "a", "b")
    assert (store.active_release(places), store.previous(places)) == ("b", "a")


def test_a_switch_to_the_active_release_keeps_the_previous_one(places: Paths) -> None:
    activate(places, "a", "b", "b")
    assert (store.active_release(places), store.previous(places)) == ("b", "a")


def test_a_release_is_previous_once_the_next_one_is_proven(places: Paths) -> None:
    activate(places, "a", "b")
    store.switch(places, "c")
    assert not store.links(places).is_proven
    # a roll-back in between leads to the release that served
    assert (store.previous(places), store.links(places).linked) == ("b", "a")
    store.confirm(places)
    assert store.links(places).is_proven
    assert (store.previous(places), store.links(places).linked) == ("b", "b")


def test_an_unproven_release_never_becomes_the_previous_one(places: Paths) -> None:
    activate(places, "a", "b")
    store.switch(places, "c")
    assert store.links(places).previous_of("b") == "a"
    store.switch(places, "b")
    assert (store.active_release(places), store.previous(places)) == ("b", "a")
    store.confirm(places)
    assert (store.active_release(places), store.previous(places)) == ("b", "a")


def test_nor_does_one_of_several(places: Paths) -> None:
    activate(places, "a")
    store.switch(places, "b")
    store.switch(places, "c")
    store.confirm(places)
    assert store.previous(places) == "a"


def test_a_first_release_that_is_unproven_leaves_no_previous_one(places: Paths) -> None:
    store.switch(places, "a")
    activate(places, "b")
    assert store.previous(places) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"replaced": 1}', "null"])
def test_a_damaged_record_is_one_of_an_activation(places: Paths, text: str) -> None:
    activate(places, "a", "b")
    files.write(places.releases / "b/activating.json", text, 0o644)
    assert (store.links(places).is_proven, store.previous(places)) == (False, None)
    store.switch(places, "c")
    assert store.previous(places) == "a"


def test_links_are_restored(places: Paths) -> None:
    """Whatever was switched since, also twice."""
    activate(places, "a", "b")
    store.switch(places, "c")
    for _ in range(2):
        store.restore(places, "b", "a")
        assert (store.active_release(places), store.previous(places)) == ("b", "a")
    store.restore(places, None, None)
    assert not places.current.is_symlink()
    assert not places.previous.is_symlink()


def test_a_record_of_a_failure(places: Paths) -> None:
    directory = places.releases / "a"
    assert failures.of(directory) is None
    failures.record(directory, "it did not answer")
    failure = failures.of(directory)
    assert failure is not None
    assert str(failure) == f"{failure.time[:10]} {failure.time[11:16]} UTC: it did not answer"
    assert store.read(places).failed == {"a": failure}
    failures.forget(directory)
    assert failures.of(directory) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"reason": 1}', "null"])
def test_a_damaged_record_is_one_of_a_failure(places: Paths, text: str) -> None:
    files.write(places.releases / "a/failed.json", text, 0o644)
    failure = failures.of(places.releases / "a")
    assert failure is not None
    assert failure.reason == "its record is damaged"


def test_a_release_that_is_proven_did_not_fail(places: Paths) -> None:
    failures.record(places.releases / "a", "once")
    store.switch(places, "a")
    assert failures.of(places.releases / "a") is not None
    store.confirm(places)
    assert failures.of(places.releases / "a") is None


def test_failed_releases_are_removed_first() -> None:
    assert store.surplus(["a", "b", "c", "d"], 3, "a", None, {"d"}) == ["d"]
    assert store.surplus(["a", "b", "c"], 2, "a", "c", {"c"}) == ["b"]


def test_a_link_that_leads_elsewhere_is_no_release(places: Paths, tmp_path: Path) -> None:
    release_records.write(tmp_path / "elsewhere")
    files.replace_link(places.current, tmp_path / "elsewhere")
    assert store.active_release(places) is None


@pytest.mark.parametrize("keep", [0, 1])
def test_the_active_release_is_kept_whatever_the_number(keep: int) -> None:
    assert store.surplus(["a", "b", "c"], keep, None, None) == ["b", "a"]
    assert store.surplus(["a", "b", "c"], keep, "a", None) == ["c", "b"]
