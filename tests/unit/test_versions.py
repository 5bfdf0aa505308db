"""How versions are written, which ones work, and the list of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from optictl.deployment import paths
from optictl.deployment.paths import Paths
from optictl.errors import NoLock, NoSuchVersion, TimedOut, ToolError, UsageFailure
from optictl.host import files, uv
from optictl.releases import failures, locks, verification, versions
from optictl.releases.release_record import Conformance
from optictl.releases.store import StoredRelease
from optictl.releases.verification import Verification
from testing import release_records

FAILED_RUN = Conformance(False, "2026-11-29T09:00:00Z")


@pytest.mark.parametrize("text", ["0.3.12", "0.3.13", "0.4.0", "1.0.0", "10.20.30"])
def test_a_final_version(text: str) -> None:
    assert versions.problem(text) == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the version is empty"),
        ("  ", "the version is empty"),
        ("latest", "'latest' is not a version: a release has one version"),
        ("LATEST", "is not a version: a release has one version"),
        ("main", "is not a version: a release has one version"),
        ("v0.3.13", "write 0.3.13"),
        ("V0.3.13", "write 0.3.13"),
        (" 0.3.13 ", "write 0.3.13"),
        ("0.3.13\n", "write 0.3.13"),
        ("==0.3.13", "write 0.3.13"),
        ("optillm==0.3.13", "write 0.3.13"),
        ("optillm 0.3.13", "write 0.3.13"),
        ("optillm@0.3.13", "write 0.3.13"),
        ("0.3.13rc1", "is a pre-release"),
        ("0.3.13.dev1", "is a pre-release"),
        ("0.4.0a1", "is a pre-release"),
        ("0.4.0-beta.2", "is a pre-release"),
        ("0.3.13.post1", "is a post-release"),
        ("0.3.13-1", "is a post-release"),
        ("0.3.13+local", "is a local version"),
        ("0.3.13rc1+local", "is a local version"),
        ("banana", "'banana' is not a version of OptiLLM: one has three numbers"),
        ("0.3", "one has three numbers"),
        ("0", "one has three numbers"),
        ("0.3.13.0", "one has three numbers"),
        ("0.3.013", "one has three numbers"),
        ("0.3.x", "one has three numbers"),
        ("0.3.*", "one has three numbers"),
        (">=0.3.13", "one has three numbers"),
        ("-1.0.0", "one has three numbers"),
        ("0.3.\u0661", "one has three numbers"),
        ("../../etc/passwd", "one has three numbers"),
        ("https://example.org/optillm.whl", "one has three numbers"),
    ],
)
def test_what_is_no_final_version(text: str, words: str) -> None:
    assert words in versions.problem(text)
    places = paths.system(Path("/nonexistent"), "optillm-two")
    with pytest.raises(UsageFailure) as refused:
        versions.refuse_malformed(text, places, "proxy")
    assert refused.value.exit_code == 2
    assert "optictl upgrade --list --root /nonexistent --name optillm-two" in refused.value.remedy
    assert "\n" not in refused.value.what


def test_the_fix_is_the_version_that_was_meant_or_one_that_works() -> None:
    places = paths.system(Path("/nonexistent"))
    for text, version in (("v0.9.9", "0.9.9"), ("latest", locks.shipped_versions("proxy")[-1])):
        with pytest.raises(UsageFailure) as refused:
            versions.refuse_malformed(text, places, "proxy")
        assert refused.value.remedy.startswith(f"optictl upgrade {version} --root /nonexistent,")


def test_older() -> None:
    assert versions.is_older("0.3.9", "0.3.12")
    assert not versions.is_older("0.3.12", "0.3.12")
    assert not versions.is_older("0.4.0", "0.3.12")


# -- which ones work


@pytest.fixture
def places(tmp_path: Path) -> Paths:
    """A deployment with two kept locks, and a release that was built from one of them."""
    places = paths.system(tmp_path)
    for version in ("9.9.8", "9.9.9"):
        lock = places.locks / locks.lock_name(version, "proxy")
        files.make_directory(lock.parent)
        files.write(lock, f"optillm=={version}\n", 0o644)
    built(places, "9.9.8")
    return places


def built(places: Paths, version: str, **changes: object) -> Path:
    lock = locks.lock_file(version, "proxy", places)
    directory = places.releases / version
    digest = files.sha256(lock)
    release_records.write(directory, optillm=version, lock_sha256=digest, **changes)
    return directory


def test_a_kept_lock_works_if_its_release_does(places: Paths) -> None:
    shipped = locks.shipped_versions("proxy")
    assert locks.working_versions(places, "proxy") == [*shipped, "9.9.8"]
    failures.record(places.releases / "9.9.8", "moa: 500")
    assert locks.working_versions(places, "proxy") == shipped
    built(places, "9.9.9", conformance=FAILED_RUN)
    assert locks.working_versions(places, "proxy") == shipped
    built(places, "9.9.9")
    assert locks.working_versions(places, "proxy") == [*shipped, "9.9.9"]


def test_a_shipped_lock_works_until_its_release_fails(tmp_path: Path) -> None:
    places = paths.system(tmp_path)
    *others, newest = locks.shipped_versions("proxy")
    assert locks.recommended(places, "proxy") == newest
    failures.record(built(places, newest), "moa: 500")
    assert locks.recommended(places, "proxy") == others[-1]
    assert locks.working_versions(places, "proxy") == others


def test_a_missing_lock_recommends_a_version_that_works(places: Paths) -> None:
    with pytest.raises(NoLock) as missing:
        locks.lock_file("7.7.7", "proxy", places)
    works, _, resolves = missing.value.remedy.partition("; or ")
    assert works == f"{places.command('upgrade 9.9.8')}, a version that works"
    assert resolves.endswith(places.command("upgrade 7.7.7 --resolve --dry-run"))


# -- the index


def index(monkeypatch: pytest.MonkeyPatch, *known: str) -> None:
    """uv's index has these versions; without any it does not answer."""

    def newest(_: str) -> str:
        if not known:
            raise TimedOut("uv did not end within 30 s", "")
        return known[-1]

    def has(_: str, version: str) -> bool:
        newest(version)
        return version in known

    monkeypatch.setattr(uv, "newest_version", newest)
    monkeypatch.setattr(uv, "has_version", has)


def test_a_version_that_the_index_does_not_have(
    places: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(monkeypatch, "0.3.12", "0.4.0")
    versions.refuse_missing("0.4.0", places, "proxy")
    with pytest.raises(NoSuchVersion) as missing:
        versions.refuse_missing("0.3.99", places, "proxy")
    assert missing.value.what == (
        "the package index has no OptiLLM 0.3.99; the newest one is 0.4.0"
    )
    assert missing.value.remedy.startswith(places.command("upgrade 9.9.8"))


def test_without_an_index_nothing_is_said_of_it(
    places: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(monkeypatch)
    versions.refuse_missing("0.3.99", places, "proxy")
    found = versions.read(places, "proxy")
    assert (found.newest, found.problem) == ("", "uv did not end within 30 s")
    assert {offer.version for offer in found.versions} > {"9.9.8", "9.9.9"}


@pytest.mark.parametrize(
    ("output", "missing"),
    [
        ("Because there is no version of optillm==0.3.99 and you require it", True),
        ("  x Because there is no\n  version of optillm==0.3.99 and you require", True),
        ("Failed to fetch: https://example.org/simple/optillm/", False),
        ("Because optillm was not found in the package registry", False),
    ],
)
def test_uv_says_that_there_is_no_such_version(output: str, missing: bool) -> None:
    assert uv.is_missing_version(ToolError("uv pip compile failed", output)) is missing


# -- the list

REFUSED = verification.judge(["optillm/server.py:main"], None)


def stored(version: str, state: str, verdict: Verification | None = None) -> StoredRelease:
    name = f"{version}-{state}"
    return StoredRelease(name, version, "proxy", "", "", 1, state, verification=verdict)


def test_the_list() -> None:
    known = verification.judge([], None)
    found = versions.offers(
        ["0.3.12", "0.3.13"],
        ["0.3.20", "0.3.21"],
        [
            stored("0.3.12", "kept", known),
            stored("0.3.12", "active", known),
            stored("0.3.20", "failed", known),
            stored("0.3.11", "kept", REFUSED),
        ],
        "0.4.0",
    )
    assert [(o.version, o.lock, o.verification.state, o.state, o.status) for o in found] == [
        ("0.4.0", "none", "unknown", "", "skip"),
        ("0.3.21", "kept", "unknown", "", "skip"),
        ("0.3.20", "kept", "verified", "failed", "fail"),
        ("0.3.13", "shipped", "verified", "", "pass"),
        ("0.3.12", "shipped", "verified", "active", "pass"),
        ("0.3.11", "none", "refused", "kept", "fail"),
    ]
    assert [offer.newest for offer in found] == [True, False, False, False, False, False]
    assert found[4].release == "0.3.12-active"
    assert found[0].as_dict()["data"]["verification"]["reason"] == "it has no lock"
