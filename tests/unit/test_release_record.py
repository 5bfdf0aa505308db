"""release.json: what is written is read back; what is damaged or alien is an incomplete release."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from optictl.deployment import paths
from optictl.releases import integrity, release_record, store
from optictl.releases.release_record import Conformance, Distribution
from testing import release_records

FLASK = {"flask": Distribution("3.1.0", "0" * 64)}


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    release_records.write(tmp_path, distributions=FLASK, files={"guard/a.py": "1" * 64})
    record = release_record.read(tmp_path)
    assert record is not None
    assert record.distributions == FLASK
    release_record.write(tmp_path / "..", record)
    again = (tmp_path.parent / "release.json").read_bytes()
    assert again == (tmp_path / "release.json").read_bytes()


def test_the_shape_on_disk(tmp_path: Path) -> None:
    """Later versions of optictl, and Ansible's module, read releases that this one built."""
    release_records.write(tmp_path, flags=("--host",), distributions=FLASK)
    assert json.loads((tmp_path / "release.json").read_text()) == {
        "schema": 1,
        "id": "0.3.12-0123456789ab",
        "optillm": "0.3.12",
        "profile": "proxy",
        "guard": "3",
        "flags": ["--host"],
        "lock_sha256": "0" * 64,
        "python": {"path": "/usr/bin/python3", "version": "3.12.4"},
        "built": "2026-11-28T12:00:00Z",
        "proof": {"strategy": "moa", "upstream_calls": 3, "latency_ms": 1200},
        "distributions": {"flask": {"version": "3.1.0", "record_sha256": "0" * 64}},
        "files": {},
        "conformance": None,
    }


def test_a_conformance_run_is_on_record(tmp_path: Path) -> None:
    run = Conformance(True, "2026-11-29T09:00:00Z")
    release_records.write(tmp_path, conformance=run)
    record = release_record.read(tmp_path)
    assert record is not None
    assert record.conformance == run


def test_a_release_of_an_earlier_optictl_has_no_conformance_run(tmp_path: Path) -> None:
    release_records.write(tmp_path)
    file = tmp_path / "release.json"
    data = json.loads(file.read_text())
    del data["conformance"]
    file.write_text(json.dumps(data))
    assert release_record.read(tmp_path) == release_records.SAMPLE


def test_fields_of_a_later_version_are_ignored(tmp_path: Path) -> None:
    release_records.write(tmp_path)
    file = tmp_path / "release.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": 2, "colour": "green"}))
    assert release_record.read(tmp_path) == release_records.SAMPLE


def damaged(**changes: Any) -> str:
    """The text of a release.json, with these fields changed (None: removed)."""
    good: dict[str, Any] = {
        "id": "x",
        "optillm": "0.3.12",
        "profile": "proxy",
        "guard": "3",
        "flags": [],
        "lock_sha256": "0",
        "python": {"path": "/usr/bin/python3", "version": "3.12.4"},
        "built": "2026-11-28T12:00:00Z",
        "proof": {"strategy": "moa", "upstream_calls": 3, "latency_ms": 1},
        "distributions": {},
        "files": {},
    }
    return json.dumps({name: v for name, v in {**good, **changes}.items() if v is not None})


def test_the_undamaged_text_is_a_record(tmp_path: Path) -> None:
    (tmp_path / "release.json").write_text(damaged())
    assert release_record.read(tmp_path) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"id": "x"}',
        damaged(optillm=None),
        damaged(python={"path": "/usr/bin/python3"}),
        damaged(python={"path": "/usr/bin/python3", "version": "three"}),
        damaged(distributions={"flask": "3.1.0"}),
        damaged(flags="--host"),
        damaged(built=7),
    ],
)
def test_a_damaged_record_is_an_incomplete_release(text: str, tmp_path: Path) -> None:
    places = paths.system(tmp_path)
    directory = places.releases / "a"
    release_records.write(directory)
    store.switch(places, "a")
    assert store.active_release(places) == "a"
    (directory / "release.json").write_text(text)
    assert release_record.read(directory) is None
    assert store.active_release(places) is None
    assert store.half_built(places) == [directory]
    assert [stored.state for stored in store.listing(places)] == ["half-built"]
    wrong = ["its release.json is missing or damaged"]
    assert integrity.integrity_problems(directory) == wrong
    assert integrity.interpreter_problem(directory) == wrong[0]


def test_bytes_that_are_no_text_are_an_incomplete_release(tmp_path: Path) -> None:
    (tmp_path / "release.json").write_bytes(b"\xff\xfe")
    assert release_record.read(tmp_path) is None
