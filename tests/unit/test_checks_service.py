"""The service during a restart: it drains while its sibling serves, and that is no fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from optictl.checks import engine, service
from optictl.deployment import paths
from optictl.facts import units as unit_facts
from optictl.facts.deployment import Deployment
from optictl.host.systemd import Unit
from optictl.results import Result

NAME, NEXT = "optillm-proxy.service", "optillm-proxy-next.service"


def judged(monkeypatch: pytest.MonkeyPatch, root: Path, state: str, sibling: str) -> Result:
    """What service.active finds with these states of the service and of its sibling."""
    places = paths.system(root)
    units = {
        NAME: Unit(NAME, load_state="loaded", active_state=state, sub_state="x", result="success"),
        NEXT: Unit(NEXT, load_state="loaded", active_state=sibling),
    }
    monkeypatch.setattr(unit_facts, "read_units", lambda _: units)
    monkeypatch.setattr(unit_facts, "last_problem", lambda *_: "")
    return engine._run(service.service_active, Deployment(places, places.config))


@pytest.mark.parametrize("state", ["deactivating", "activating"])
def test_a_sibling_serves_while_the_service_changes(
    state: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = judged(monkeypatch, tmp_path, state, "active")
    assert found.status == "pass"
    assert found.found == f"{state}, in a restart; {NEXT} serves meanwhile"


@pytest.mark.parametrize(
    ("state", "sibling"),
    [("deactivating", "inactive"), ("deactivating", "activating"), ("failed", "active")],
)
def test_without_one_that_serves_it_is_a_fault(
    state: str, sibling: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert judged(monkeypatch, tmp_path, state, sibling).status == "fail"
