"""upgrade with a lock that optictl does not ship: it is kept once its release is proven."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from optictl.cli import app, ending
from optictl.deployment import paths
from optictl.deployment.paths import Paths
from optictl.errors import NotReady, OptictlError, ProofFailed, RolledBack, TimedOut, ToolError
from optictl.facts.deployment import Deployment
from optictl.host import files, uv
from optictl.operations import resolve, upgrade
from optictl.operations.installation import Circumstances, Installation
from optictl.operations.resolve import Resolution
from optictl.releases import build, locks, store
from tests.integration.transactions.failing import CANARY, LAST_PROOF, failing
from tests.integration.transactions.test_every_effect import (
    LATER,
    OLD,
    go_to,
    install,
    operators_files,
    quiet,
)

LOCK = "optillm==0.3.14 \\\n    --hash=sha256:aa\n"


@pytest.fixture
def places(place: Path, small_releases: None) -> Paths:
    """The old release is active."""
    places = paths.system(place)
    operators_files(OLD, places)
    install(OLD, places)
    return places


def kept(places: Paths) -> Path:
    return places.locks / locks.lock_name("0.3.14", "proxy")


def go_with_lock(
    places: Paths,
    text: str = LOCK,
    until: Callable[[Installation], Installation] = lambda whole: whole,
) -> list[str]:
    """Upgrade to 0.3.14 with this lock; the actions of the plan."""
    with resolve.unkept(kept(places).name, text) as file:

        def plan() -> Installation:
            given = Circumstances(lock=file)
            return until(upgrade.plan_upgrade(OLD, places.config, places, "0.3.14", given))

        planned = plan()
        upgrade.prove_and_switch(planned, plan, OLD, None, None, quiet, quiet, report_proof=quiet)
    return [step.action for step in planned.steps]


def versions_here(places: Paths) -> dict[str, str]:
    return {release.version: release.state for release in store.listing(places)}


def test_a_lock_is_kept_once_its_release_is_proven(places: Paths) -> None:
    actions = go_with_lock(places)
    assert actions.index("canary") < actions.index("keep") < actions.index("switch")
    assert kept(places).read_text() == LOCK
    assert kept(places).stat().st_mode & 0o777 == 0o644
    assert versions_here(places) == {"0.3.12": "previous", "0.3.14": "active"}
    # `install` and another `upgrade` find it, and the release has the same identity
    again = OLD.model_copy(update={"optillm": OLD.optillm.model_copy(update={"version": "0.3.14"})})
    assert upgrade.plan_upgrade(again, places.config, places, "0.3.14").steps == []
    assert locks.recommended(places, "proxy") == locks.shipped_versions("proxy")[-1]


def test_a_canary_keeps_it_too(places: Paths) -> None:
    assert go_with_lock(places, until=upgrade.up_to_the_proof) == ["build", "canary", "keep"]
    assert kept(places).read_text() == LOCK
    assert versions_here(places) == {"0.3.12": "active", "0.3.14": "kept"}


def _fails(
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    failure: BaseException,
    act: Callable[[], object],
) -> None:
    with (
        failing(monkeypatch, function, failure),
        pytest.raises((RolledBack, KeyboardInterrupt)),
    ):
        act()


@pytest.mark.parametrize(
    "function",
    ["optictl.releases.build.conform", CANARY, LAST_PROOF],
    ids=["build", "canary", "end"],
)
@pytest.mark.parametrize("before", [None, "optillm==0.3.14 --hash=sha256:bb\n"])
def test_the_lock_of_a_failed_release_is_not_kept(
    function: str, before: str | None, places: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was there stays."""
    if before is not None:
        files.make_directory(places.locks)
        files.write(kept(places), before, 0o644)
    _fails(monkeypatch, function, ProofFailed("moa: 500"), lambda: go_with_lock(places))
    assert files.read(kept(places)) == before
    assert locks.recommended(places, "proxy") == locks.shipped_versions("proxy")[-1]


@pytest.mark.parametrize(
    "function",
    ["optictl.releases.build.conform", CANARY, LAST_PROOF],
    ids=["build", "canary", "end"],
)
@pytest.mark.parametrize("failure", [ProofFailed("moa: 500"), NotReady("it ended")])
def test_a_kept_lock_whose_release_failed_is_removed(
    function: str, failure: OptictlError, places: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.make_directory(places.locks)
    files.write(kept(places), LOCK, 0o644)
    _fails(monkeypatch, function, failure, lambda: go_to(OLD, "0.3.14", places))
    assert not kept(places).exists()
    assert locks.recommended(places, "proxy") == locks.shipped_versions("proxy")[-1]


@pytest.mark.parametrize(
    ("function", "failure"),
    [
        ("optictl.host.uv.install", ToolError("uv pip install failed", "no route to host")),
        ("optictl.releases.build.conform", KeyboardInterrupt()),
        (LAST_PROOF, KeyboardInterrupt()),
    ],
    ids=["tool", "interrupted", "interrupted-at-the-end"],
)
def test_a_kept_lock_that_is_not_to_blame_stays(
    function: str, failure: BaseException, places: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.make_directory(places.locks)
    files.write(kept(places), LOCK, 0o644)
    _fails(monkeypatch, function, failure, lambda: go_to(OLD, "0.3.14", places))
    assert kept(places).read_text() == LOCK


def test_nor_does_one_whose_release_was_proven_before(
    places: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_with_lock(places, until=upgrade.up_to_the_proof)
    _fails(monkeypatch, CANARY, ProofFailed("moa: 500"), lambda: go_to(OLD, "0.3.14", places))
    assert kept(places).read_text() == LOCK


# -- the command line


def run(capsys: pytest.CaptureFixture[str], places: Paths, *words: str) -> tuple[int, str, str]:
    """The exit code, and both streams, of `optictl WORDS` for this deployment."""
    root = str(places.etc.parent.parent)
    arguments = [*words, "--root", root]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["optictl", *arguments])
        code = ending.run(app, arguments)
    said = capsys.readouterr()
    return code, said.out, " ".join(said.err.split())


def resolution(places: Paths, unknown: list[str], refused: str = "") -> Resolution:
    changed = dict.fromkeys(unknown, "-old\n+new\n")
    return Resolution(kept(places), LOCK, ["optillm 0.3.12 -> 0.3.14"], changed, unknown, refused)


CALLED = "optillm/server.py:parse_args"


@pytest.fixture
def refused(places: Paths, monkeypatch: pytest.MonkeyPatch) -> Paths:
    why = resolve.why_refused("0.3.14", "0.3.12", [CALLED], [CALLED])
    found = resolution(places, [CALLED], why)
    monkeypatch.setattr(resolve, "resolve", lambda *_: found)

    def build_nothing(*_: object) -> None:
        pytest.fail("a refused release was built")

    monkeypatch.setattr(build, "build", build_nothing)
    return places


@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--canary-only",), ("--build-only",)])
def test_a_lock_that_leads_to_a_refused_release_ends_there(
    more: tuple[str, ...], refused: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("upgrade", "0.3.14", "--resolve", "--yes", *more)
    code, out, err = run(capsys, refused, *command)
    assert code == 1
    assert f"{CALLED} changed (not known to the guard)" in out
    assert f"OptiLLM 0.3.14 is refused: it has no {CALLED}, which the guard calls" in err
    root = refused.etc.parent.parent
    newest = locks.shipped_versions("proxy")[-1]
    assert f"upgrade {newest} --root {root}, a version that works" in err
    assert f"upgrade --list --root {root} shows" in err
    code, out, _ = run(capsys, refused, *command, "--output", "json")
    said = json.loads(out)
    assert (code, said["status"], said["error"]["code"]) == (1, "failed", "release-refused")
    assert said["results"][0]["data"]["unknown"] == [CALLED]
    assert said["results"][0]["status"] == "fail"
    assert not refused.locks.exists()
    assert versions_here(refused) == {"0.3.12": "active"}


@pytest.mark.parametrize("fails", [False, True])
def test_the_conformance_run_decides_about_unknown_texts(
    fails: bool,
    places: Paths,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(resolve, "resolve", lambda *_: resolution(places, [CALLED]))
    command = ("upgrade", "0.3.14", "--resolve")
    code, out, _ = run(capsys, places, *command, "--dry-run")
    assert code == 0
    assert "A conformance run after the build decides" in " ".join(out.split())
    code, out, _ = run(capsys, places, *command, "--dry-run", "--output", "json")
    assert (code, json.loads(out)["results"][0]["status"]) == (0, "warn")
    if fails:
        failure = ProofFailed("moa: 500")
        with failing(monkeypatch, "optictl.releases.build.conform", failure):
            code, _, err = run(capsys, places, *command, "--yes")
        assert code != 0
        assert "moa: 500" in err
        assert not kept(places).exists()
        assert versions_here(places) == {"0.3.12": "active"}
    else:
        code, _, _ = run(capsys, places, *command, "--yes")
        assert code == 0
        assert kept(places).read_text() == LOCK
        assert versions_here(places) == {"0.3.12": "previous", "0.3.14": "active"}


@pytest.mark.parametrize(
    ("version", "missing", "unknown", "words"),
    [
        ("0.5.0", ["a"], ["a"], "it has no a, which the guard calls"),
        ("0.3.11", [], ["a", "b"], "it is older than 0.3.12, and the guard does not know a, b"),
        ("0.3.11", [], [], ""),
        ("0.5.0", [], ["a"], ""),
        ("0.3.12", [], ["a"], ""),
    ],
)
def test_what_is_refused_before_a_build(
    version: str, missing: list[str], unknown: list[str], words: str
) -> None:
    assert resolve.why_refused(version, "0.3.12", missing, unknown) == words


def test_a_dry_run_shows_the_whole_plan_and_keeps_nothing(
    places: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resolve, "resolve", lambda *_: resolution(places, []))
    command = ("upgrade", "0.3.14", "--resolve", "--dry-run")
    code, out, err = run(capsys, places, *command)
    assert code == 0
    assert "optillm 0.3.12 -> 0.3.14" in out
    assert f"keep    {kept(places)} (its release is proven)" in out
    assert f"the lock would be kept as {kept(places)}" in err
    code, out, _ = run(capsys, places, *command, "--output", "json")
    said = json.loads(out)
    assert code == 0
    assert said["results"][0]["data"]["closure"] == ["optillm 0.3.12 -> 0.3.14"]
    assert "keep" in [step["action"] for step in said["plan"]]
    assert not places.locks.exists()


def test_a_build_alone_keeps_the_lock_for_the_upgrade(
    places: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resolve, "resolve", lambda *_: resolution(places, []))
    code, out, _ = run(capsys, places, "upgrade", "0.3.14", "--resolve", "--build-only", "--yes")
    assert code == 0
    assert "is built and was not activated" in out
    assert kept(places).read_text() == LOCK


def test_an_older_version_says_so(places: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    go_to(OLD, "0.3.13", places)
    assert upgrade.plan_upgrade(LATER, places.config, places, "0.3.13").problems == []
    note = "OptiLLM 0.3.12 is older than 0.3.13, which is active"
    for command in (("--dry-run",), ("--yes", "--canary-only")):
        code, out, _ = run(capsys, places, "upgrade", "0.3.12", *command)
        assert code == 0
        assert note in out
        assert f"rollback --root {places.etc.parent.parent} returns to this version" in out
        code, out, _ = run(capsys, places, "upgrade", "0.3.12", *command, "--output", "json")
        said = json.loads(out)
        problems = {problem["id"]: problem for problem in said.get("problems", ())}
        assert problems["preflight.older"]["found"] == note


def test_a_service_in_the_foreground_has_to_be_stopped_first(
    places: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Deployment, "own_process", 4711)
    monkeypatch.setattr(build, "build", lambda *_: pytest.fail("it was built"))
    root = places.etc.parent.parent
    for command in (("upgrade", "0.3.13", "--dry-run"), ("upgrade", "0.3.13", "--yes")):
        code, out, _ = run(capsys, places, *command)
        assert code == 1
        assert "process 4711 serves this deployment in the foreground" in " ".join(out.split())
        assert "kill 4711 && tail --pid=4711 -f /dev/null, then run the command again" in out
        assert f"run --root {root}" in out
        code, out, _ = run(capsys, places, *command, "--output", "json")
        assert (code, json.loads(out)["error"]["code"]) == (1, "blocked")
    # a proof alone does not touch it
    planned = upgrade.plan_upgrade(OLD, places.config, places, "0.3.13")
    assert [p.id for p in upgrade.up_to_the_proof(planned).blockers] == []
    assert [p.id for p in planned.blockers] == ["preflight.foreground"]


@pytest.mark.parametrize("version", ["latest", "v0.3.13", "banana", "", "0.3.13rc1", "0.3.13+x"])
def test_what_is_no_version_is_wrong_usage(
    version: str, places: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in ((), ("--dry-run",), ("--resolve",), ("--lock", str(places.env))):
        code, out, err = run(capsys, places, "upgrade", version, *more)
        assert (code, out) == (2, "")
        assert f"upgrade --list --root {places.etc.parent.parent}" in err
    code, out, _ = run(capsys, places, "upgrade", version, "--output", "json")
    said = json.loads(out)
    assert (code, said["error"]["code"]) == (2, "usage")
    assert said["error"]["remedy"]


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_version_that_the_index_does_not_have(
    more: tuple[str, ...],
    places: Paths,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(uv, "newest_version", lambda _: "0.4.0")
    monkeypatch.setattr(uv, "has_version", lambda _, version: version == "0.3.20")
    code, _, err = run(capsys, places, "upgrade", "9.9.9", *more)
    assert code == 1
    assert "the package index has no OptiLLM 9.9.9; the newest one is 0.4.0" in err
    code, _, err = run(capsys, places, "upgrade", "0.3.20", *more)
    assert code == 1
    assert "has no lock file for OptiLLM 0.3.20" in err


def test_the_list_of_versions(
    places: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(uv, "newest_version", lambda _: "0.99.0")
    code, out, _ = run(capsys, places, "upgrade", "--list")
    assert code == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert rows["0.3.12"][1:] == ["shipped", "conformant", "here", "active", rows["0.3.12"][-1]]
    assert rows["0.3.13"][1:] == ["shipped", "verified"]
    assert "The newest on the package index is 0.99.0." in out
    code, out, _ = run(capsys, places, "upgrade", "--list", "--output", "json")
    said = json.loads(out)
    assert said["index"] == {"newest": "0.99.0", "problem": ""}
    found = {one["id"]: one["data"] for one in said["results"]}
    assert found["0.3.12"]["state"] == "active"
    assert found["0.99.0"]["newest"] is True


def test_the_list_without_an_index(
    places: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def silent(_: str) -> str:
        raise TimedOut("uv did not end within 30 s", "")

    monkeypatch.setattr(uv, "newest_version", silent)
    code, out, _ = run(capsys, places, "upgrade", "--list")
    assert code == 0
    assert "The package index cannot be asked: uv did not end within 30 s" in out
    assert "shipped" in out


@pytest.mark.parametrize("more", [("0.3.13",), ("--resolve",), ("--canary-only",)])
def test_the_list_stands_alone(
    more: tuple[str, ...], places: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, places, "upgrade", "--list", *more)
    assert code == 2
    assert "--list takes no version" in err
