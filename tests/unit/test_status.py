"""What `optictl status` makes of the units and the health tiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from optictl.checks import catalog
from optictl.deployment import paths
from optictl.facts import units as unit_facts
from optictl.host.systemd import Unit
from optictl.observe import status
from optictl.observe.status import Status
from optictl.releases import store
from optictl.releases.release_record import Conformance
from optictl.results import Result
from testing import release_records

TIERS = ("health.alive", "health.locked", "health.connected")


def seen(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    unit: Unit,
    *failed: str,
    others: Sequence[Unit] = (),
) -> Status:
    """The status with these facts of systemd, and with these tiers failed."""
    places = paths.system(tmp_path)
    results = [
        Result(id, id, "fail" if id in failed else "pass", found=f"{id} found", root_cause=id)
        for id in TIERS
    ]
    found = {unit.name: unit for unit in (replace(unit, name=places.service_unit), *others)}
    found.setdefault(places.socket_unit, Unit(places.socket_unit))
    monkeypatch.setattr(unit_facts, "read_units", lambda _: found)
    monkeypatch.setattr(catalog, "run", lambda *_: results)
    monkeypatch.setattr(unit_facts, "port_taken", lambda *_: "")
    monkeypatch.setattr(unit_facts, "last_problem", lambda *_: "the journal's last error")
    return status.read_status(places, places.config)


def test_a_unit_that_is_not_there_is_to_be_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = seen(monkeypatch, tmp_path, Unit("x", load_state="not-found"), "health.alive")
    assert found.next.endswith("install") or " install " in found.next
    assert not found.good


def test_it_is_good_only_if_every_tier_passed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unit = Unit("x", load_state="loaded", active_state="active", status_text="serving")
    assert seen(monkeypatch, tmp_path, unit).good
    partly = seen(monkeypatch, tmp_path, unit, "health.connected")
    assert not partly.good
    assert partly.problem == "health.connected: health.connected found"


def test_a_failed_unit_is_explained_by_its_journal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unit = Unit("x", load_state="loaded", active_state="failed", status_text="serving")
    found = seen(monkeypatch, tmp_path, unit, *TIERS)
    assert found.problem == "the journal's last error"
    assert found.doing == ""


def test_a_unit_that_was_stopped_has_no_problem_of_its_journal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unit = Unit("x", load_state="loaded", active_state="inactive", result="success")
    assert seen(monkeypatch, tmp_path, unit, *TIERS).problem == "health.alive: health.alive found"


def test_it_says_whether_the_release_is_verified(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unit = Unit("x", load_state="loaded", active_state="active")
    assert seen(monkeypatch, tmp_path, unit).verification is None
    places = paths.system(tmp_path)
    conformance = Conformance(True, "2026-11-29T09:00:00Z")
    release_records.write(places.releases / "a", conformance=conformance)
    store.switch(places, "a")
    data = seen(monkeypatch, tmp_path, unit).as_dict()["data"]
    assert data["verification"]["state"] == "conformant"


def test_it_has_every_unit_that_exists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs = {"load_state": "loaded", "active_state": "active", "sub_state": "running"}
    unit = Unit("x", **runs, memory_current=1000)  # type: ignore[arg-type]
    sibling = Unit(
        "optillm-proxy-next.service",
        **runs,  # type: ignore[arg-type]
        status_text="serving",
        memory_current=200,
    )
    missing = Unit("optillm-proxy-check.timer", load_state="not-found", active_state="inactive")
    found = seen(monkeypatch, tmp_path, unit, others=(sibling, missing))
    assert [(each.name, each.state, each.doing) for each in found.units] == [
        ("optillm-proxy.service", "active (running)", ""),
        ("optillm-proxy-next.service", "active (running)", "serving"),
    ]
    assert found.memory == 1200
