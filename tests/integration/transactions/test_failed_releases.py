"""A release that was rolled back is failed, with reason and time; no roll-back leads to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from optictl.deployment import paths
from optictl.deployment.paths import Paths
from optictl.errors import OptictlError, ProofFailed, RolledBack
from optictl.host import files
from optictl.operations import install as installing
from optictl.operations import upgrade
from optictl.releases import build, locks, release_record, store
from optictl.releases.release_record import Conformance
from optictl.releases.store import StoredRelease
from tests.integration.transactions.failing import CANARY, LAST_PROOF, failing
from tests.integration.transactions.test_every_effect import (
    LATER,
    OLD,
    go_back,
    go_to,
    install,
    operators_files,
)


def _failure(
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    failure: BaseException,
    act: Callable[[], None],
) -> RolledBack:
    """How an act ends in which a function of optictl fails."""
    with failing(monkeypatch, function, failure), pytest.raises(RolledBack) as ended:
        act()
    return ended.value


@pytest.fixture
def places(place: Path, small_releases: None) -> Paths:
    """The old release is active."""
    places = paths.system(place)
    operators_files(OLD, places)
    install(OLD, places)
    return places


def listed(places: Paths) -> dict[str, StoredRelease]:
    """version -> release."""
    return {release.version: release for release in store.listing(places)}


def _upgrade_fails_at_the_end(places: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = _failure(
        monkeypatch,
        LAST_PROOF,
        OptictlError("health.alive: no"),
        lambda: go_to(OLD, "0.3.13", places),
    )
    assert ended.what.startswith("health.alive: no; rolled back to 0.3.12")


def test_after_a_roll_back_there_is_no_way_forward(
    places: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    _upgrade_fails_at_the_end(places, monkeypatch)
    found = listed(places)
    assert (found["0.3.12"].state, found["0.3.13"].state) == ("active", "failed")
    failure = found["0.3.13"].failure
    assert failure is not None
    assert failure.reason == "health.alive: no"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", failure.time)
    assert found["0.3.13"].as_dict()["data"]["failure"]["reason"] == "health.alive: no"
    with pytest.raises(OptictlError, match="there is no previous release"):
        go_back(OLD, places)


def test_the_previous_release_stays_what_it_was(
    places: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_to(OLD, "0.3.13", places)
    lock = places.locks / locks.lock_name("0.3.14", "proxy")
    files.make_directory(lock.parent)
    files.write(lock, "optillm==0.3.14 --hash=sha256:aa\n", 0o644)
    _failure(monkeypatch, LAST_PROOF, OptictlError("no"), lambda: go_to(LATER, "0.3.14", places))
    assert {v: r.state for v, r in listed(places).items()} == {
        "0.3.12": "previous",
        "0.3.13": "active",
        "0.3.14": "failed",
    }
    go_back(LATER, places)
    assert listed(places)["0.3.12"].state == "active"


def test_a_failed_release_may_be_tried_again(
    places: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    _upgrade_fails_at_the_end(places, monkeypatch)
    go_to(OLD, "0.3.13", places)
    assert {v: r.state for v, r in listed(places).items()} == {
        "0.3.12": "previous",
        "0.3.13": "active",
    }
    # it served: what failed once is no longer said of it
    go_back(LATER, places)
    assert listed(places)["0.3.13"].state == "previous"


def test_a_previous_release_that_failed_is_no_goal(
    places: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_to(OLD, "0.3.13", places)
    go_back(LATER, places)
    _upgrade_fails_at_the_end(places, monkeypatch)
    with pytest.raises(OptictlError, match=r"0\.3\.13-\w+, failed on .*: health.alive: no") as no:
        go_back(OLD, places)
    assert no.value.remedy == f"{places.command('upgrade 0.3.13')} tries it again"


def test_a_release_that_did_not_prove_itself_failed(
    places: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = _failure(
        monkeypatch, CANARY, OptictlError("moa: 500"), lambda: go_to(OLD, "0.3.13", places)
    )
    assert "did not prove itself: moa: 500" in ended.what
    failure = listed(places)["0.3.13"].failure
    assert failure is not None
    assert failure.reason == "moa: 500"


def test_the_previous_release_has_not_failed_where_the_upstream_does(
    places: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_to(OLD, "0.3.13", places)
    _failure(monkeypatch, CANARY, OptictlError("moa: 500"), lambda: go_back(LATER, places))
    assert listed(places)["0.3.12"].state == "previous"
    go_back(LATER, places)
    assert listed(places)["0.3.12"].state == "active"


def test_an_interruption_is_no_failure(places: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    _failure(monkeypatch, LAST_PROOF, KeyboardInterrupt(), lambda: go_to(OLD, "0.3.13", places))
    assert listed(places)["0.3.13"].state == "kept"


class Killed(BaseException):
    """optictl ends at once, as after SIGKILL: nothing is rolled back."""


def _upgrade_is_killed_before_its_proof(places: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(LAST_PROOF, fail)
        with pytest.raises(Killed):
            go_to(OLD, "0.3.13", places)


def test_a_release_that_was_never_proven_does_not_become_the_previous_one(
    places: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    _upgrade_is_killed_before_its_proof(places, monkeypatch)
    states = {v: r.state for v, r in listed(places).items()}
    assert states == {"0.3.12": "previous", "0.3.13": "active"}
    operators_files(OLD, places)  # as it was before the last steps of the upgrade
    install(OLD, places)
    states = {v: r.state for v, r in listed(places).items()}
    assert states == {"0.3.12": "active", "0.3.13": "kept"}
    with pytest.raises(OptictlError, match="there is no previous release"):
        go_back(OLD, places)


@pytest.mark.parametrize("again", ["install", "upgrade"])
def test_a_release_that_was_never_proven_is_proven_by_the_next_run(
    again: str, places: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    _upgrade_is_killed_before_its_proof(places, monkeypatch)
    if again == "install":
        planned = installing.plan_install(LATER, places).steps
    else:
        planned = upgrade.plan_upgrade(LATER, places.config, places, "0.3.13").steps
    proofs = ["conform", "canary", "confirm"] if again == "upgrade" else ["confirm"]
    assert [step.action for step in planned] == proofs
    assert "did not prove it" in planned[-1].reason
    if again == "install":
        install(LATER, places)
    else:
        go_to(LATER, "0.3.13", places)
    assert installing.plan_install(LATER, places).steps == []
    assert listed(places)["0.3.12"].state == "previous"


@pytest.mark.parametrize("failure", [OptictlError("no"), KeyboardInterrupt()])
def test_a_failed_build_is_removed_at_once(
    failure: BaseException, places: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(build, "conform", fail)
    with pytest.raises((RolledBack, KeyboardInterrupt)):
        go_to(OLD, "0.3.13", places)
    assert list(listed(places)) == ["0.3.12"]
    assert len(list(places.releases.iterdir())) == 1


def conformance_of(places: Paths, version: str) -> Conformance | None:
    record = store.read(places).records[listed(places)[version].name]
    return record.conformance


def test_an_upgrade_to_a_stored_release_tries_its_promises_again(places: Paths) -> None:
    go_to(OLD, "0.3.13", places)
    go_back(LATER, places)
    release = places.releases / listed(places)["0.3.13"].name
    release_record.write(
        release, replace(store.read(places).records[release.name], conformance=None)
    )
    planned = upgrade.plan_upgrade(OLD, places.config, places, "0.3.13").steps
    assert [step.action for step in planned][:2] == ["conform", "canary"]
    go_to(OLD, "0.3.13", places)
    conformance = conformance_of(places, "0.3.13")
    assert conformance is not None
    assert conformance.passed


def test_a_roll_back_tries_no_promises(places: Paths) -> None:
    go_to(OLD, "0.3.13", places)
    planned = upgrade.plan_rollback(LATER, places.config, places).steps
    assert "conform" not in [step.action for step in planned]


def test_a_stored_release_that_breaks_a_promise_is_refused(
    places: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    _upgrade_fails_at_the_end(places, monkeypatch)
    broken = ProofFailed("the release breaks a promise (moa runs): it made no upstream call")
    ended = _failure(
        monkeypatch,
        "optictl.releases.build.conform",
        broken,
        lambda: go_to(OLD, "0.3.13", places),
    )
    assert "breaks a promise (moa runs)" in ended.what
    assert listed(places)["0.3.12"].state == "active"
    failure = listed(places)["0.3.13"].failure
    assert failure is not None
    assert failure.reason == broken.what
    conformance = conformance_of(places, "0.3.13")
    assert conformance is not None
    assert not conformance.passed
