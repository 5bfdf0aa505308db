"""The verdict on a release, and where it is read from."""

from __future__ import annotations

from pathlib import Path

import pytest

from optictl.checks import catalog
from optictl.deployment import paths
from optictl.deployment.paths import Paths
from optictl.facts.deployment import Deployment
from optictl.guard import fingerprints
from optictl.releases import store, verification
from optictl.releases.release_record import Conformance
from optictl.releases.verification import State
from optictl.results import Result, Status
from testing import release_records

PASSED = Conformance(True, "2026-11-29T09:00:00Z")
FAILED = Conformance(False, "2026-11-29T09:00:00Z")
PARTS = ["optillm/server.py:main"]


@pytest.mark.parametrize(
    ("unknown", "conformance", "state", "reason"),
    [
        ([], None, "verified", "the guard's tests passed with this OptiLLM"),
        ([], PASSED, "verified", "the guard's tests passed with this OptiLLM"),
        ([], FAILED, "refused", "the conformance run of 2026-11-29T09:00:00Z failed"),
        (PARTS, None, "refused", "the guard does not know optillm/server.py:main"),
        (PARTS, PASSED, "conformant", "the conformance run of 2026-11-29T09:00:00Z passed"),
        (PARTS, FAILED, "refused", "the conformance run of 2026-11-29T09:00:00Z failed"),
        (list("abcde"), None, "refused", "the guard does not know a, b, c and 2 more parts of it"),
        (None, None, "unknown", "its OptiLLM cannot be read, and no conformance run is on record"),
        (None, PASSED, "conformant", "the conformance run of 2026-11-29T09:00:00Z passed"),
        (None, FAILED, "refused", "the conformance run of 2026-11-29T09:00:00Z failed"),
    ],
)
def test_the_verdict(
    unknown: list[str] | None, conformance: Conformance | None, state: State, reason: str
) -> None:
    verdict = verification.judge(unknown, conformance)
    assert (verdict.state, verdict.reason) == (state, reason)


@pytest.fixture
def places(tmp_path: Path) -> Paths:
    """A deployment whose active release has an OptiLLM that the guard does not know."""
    places = paths.system(tmp_path)
    release_records.write(places.releases / "a")
    package = places.releases / "a/.venv/lib/python3.12/site-packages/optillm"
    package.mkdir(parents=True)
    (package / "server.py").write_text("def parse_args():\n    print('something else')\n")
    store.switch(places, "a")
    return places


def check(places: Paths) -> Result:
    (result,) = (
        result
        for result in catalog.run(catalog.select(["release.verified"]), Deployment(places))
        if result.id == "release.verified"
    )
    return result


def know_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "unknown", lambda *_: [])


@pytest.mark.parametrize(
    ("conformance", "status", "found"),
    [
        (
            None,
            "fail",
            "refused: the guard does not know optillm/server.py:execute_single_approach",
        ),
        (PASSED, "pass", "conformant here: the conformance run of 2026-11-29T09:00:00Z passed"),
        (FAILED, "fail", "refused: the conformance run of 2026-11-29T09:00:00Z failed"),
    ],
)
def test_the_check(
    places: Paths, conformance: Conformance | None, status: Status, found: str
) -> None:
    release_records.write(places.releases / "a", conformance=conformance)
    result = check(places)
    assert result.status == status
    assert result.found.startswith(found)
    assert result.remedy == (places.command("upgrade --list") if status == "fail" else "")


def test_the_check_of_a_known_text(places: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    know_all(monkeypatch)
    assert (check(places).status, check(places).found) == ("pass", "verified")


def test_the_check_of_what_cannot_be_read(places: Paths) -> None:
    (places.releases / "a/.venv").rename(places.releases / "a/venv")
    assert check(places).status == "skip"


def test_a_text_that_is_no_python_is_not_read(places: Paths) -> None:
    package = places.releases / "a/.venv/lib/python3.12/site-packages/optillm"
    (package / "server.py").write_text("def main(:")
    assert check(places).status == "skip"


def test_the_check_leads_back_to_the_previous_release(places: Paths) -> None:
    store.confirm(places)
    release_records.write(places.releases / "b", conformance=FAILED)
    store.switch(places, "b")
    assert check(places).remedy == places.command("rollback")


def test_releases_say_it(places: Paths) -> None:
    (release,) = store.listing(places)
    data = release.as_dict()
    assert data["status"] == "fail"
    assert data["data"]["verification"]["state"] == "refused"
    release_records.write(places.releases / "a", conformance=PASSED)
    (release,) = store.listing(places)
    assert release.as_dict()["status"] == "pass"
    assert release.verification is not None
    assert release.verification.words == "conformant here"
