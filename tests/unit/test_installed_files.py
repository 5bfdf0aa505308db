"""What a plan reads of the files that are installed, and what is left of the manifest."""

from __future__ import annotations

from pathlib import Path

from optictl.deployment.artefacts import Artefact
from optictl.deployment.manifest import Manifest
from optictl.facts import installed_files


def test_the_text_of_an_operators_file_is_not_read(tmp_path: Path) -> None:
    for name in ("key", "unit"):
        (tmp_path / name).write_text("text")
    artefacts = [
        Artefact(tmp_path / "key", "other", 0o600, keep=True),
        Artefact(tmp_path / "unit", "other", 0o644),
    ]
    seen = installed_files.read_all(artefacts, Manifest())
    assert {path.name: item.text for path, item in seen.items()} == {"key": None, "unit": "text"}
    assert seen[tmp_path / "key"].attributes.kind == "file"


def test_a_link_is_read_as_its_target(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("gone")
    assert installed_files.read(tmp_path / "link").text == "gone"


def test_the_manifest_keeps_the_present_text_and_never_an_edited_one(tmp_path: Path) -> None:
    ours, edited = tmp_path / "ours", tmp_path / "edited"
    wrote = Manifest().intending({str(ours): "old", str(edited): "old"})
    wrote = wrote.intending({str(ours): "new", str(edited): "new"})
    ours.write_text("old")
    edited.write_text("mine")
    left = installed_files.as_it_is(wrote)
    assert left.wrote(ours, "old")
    assert not left.wrote(ours, "new")
    assert not left.wrote(edited, "mine")
    assert left.wrote(edited, "new")
