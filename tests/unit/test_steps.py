"""The steps of a plan: every kind shows and applies itself, no word of one decides anything,
files can be undone.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import optictl
from optictl.deployment import paths
from optictl.deployment.artefacts import Artefact
from optictl.deployment.config import Config
from optictl.facts import installed_files
from optictl.host import files
from optictl.operations import steps
from optictl.operations.context import Context, StateBefore
from optictl.operations.steps import (
    BuildRelease,
    CreateFile,
    EditConfiguration,
    EnableUnits,
    FileStep,
    MoveAside,
    Remove,
    ReplaceFile,
    SetMode,
    Step,
    SwitchRelease,
)
from optictl.releases import store
from optictl.releases.locks import ReleaseSpec
from testing import release_records

PACKAGE = Path(optictl.__file__).resolve().parent
COLLECTION = PACKAGE / "collections/ansible_collections/optictl/optillm/plugins"


def kinds() -> list[type[Step]]:
    """Every class of step that a plan can hold."""

    def below(kind: type[Any]) -> Iterator[type[Any]]:
        for subclass in kind.__subclasses__():
            yield subclass
            yield from below(subclass)

    return [kind for kind in dict.fromkeys(below(Step)) if hasattr(kind, "action")]


def test_every_kind_is_one_of_the_package() -> None:
    assert {kind.__name__ for kind in kinds()} <= set(steps.__all__)


def test_every_kind_has_its_words_and_can_be_applied() -> None:
    assert len(kinds()) > 20
    for kind in kinds():
        assert not inspect.isabstract(kind), kind
        assert kind.action.islower(), kind
        assert kind.done, kind
        assert kind.apply is not Step.apply, kind


def compared_words(path: Path) -> Iterator[str]:
    """Comparisons and lookups of a step's word: `step.action == "build"`, `change["action"] in
    (...)`, `match`.
    """
    words = {kind.action for kind in kinds()}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            texts = {c.value for s in sides for c in ast.walk(s) if isinstance(c, ast.Constant)}
            if texts & words and any("action" in ast.unparse(side) for side in sides):
                yield f"{path.name}:{node.lineno}"
        if isinstance(node, ast.Match) and "action" in ast.unparse(node.subject):
            yield f"{path.name}:{node.lineno}"


def test_no_word_of_a_step_decides_anything(tmp_path: Path) -> None:
    assert [place for path in PACKAGE.rglob("*.py") for place in compared_words(path)] == []
    seen = tmp_path / "seen.py"
    seen.write_text('a = step.action == "build"\nb = s["action"] in ("stop", "x")\n')
    assert list(compared_words(seen)) == ["seen.py:1", "seen.py:2"]


def test_the_collection_has_the_words_of_the_classes() -> None:
    """It reads plans as JSON, on hosts where it cannot import optictl."""
    module: dict[str, Any] = {}
    exec((COLLECTION / "module_utils/optictl.py").read_text(), module)
    assert module["BUILD_RELEASE"] == BuildRelease.action
    assert module["SWITCH_RELEASE"] == SwitchRelease.action
    planned = [step.as_dict() for step in (SwitchRelease(wanted("r"), reason="x"),)]
    assert module["targets"](planned, SwitchRelease.action) == ["r"]
    assert module["step_names"](planned) == ["switch r"]


def wanted(name: str) -> ReleaseSpec:
    return ReleaseSpec(name, "0.3.12", "proxy", Path(), (), name)


def test_a_step_for_programs() -> None:
    step = EnableUnits(("a.socket", "a.service"), reason="they would not start at boot")
    assert step.as_dict() == {
        "action": "enable",
        "target": "a.socket a.service",
        "reason": "they would not start at boot",
        "diff": "",
    }
    assert Remove(Path("/x"), reason="y", edited=True).as_dict()["edited"] is True


def context(place: Path) -> Context:
    return Context(Config(), paths.system(place), lambda _: None)


def state_before(*, release: str | None = None, **texts: tuple[Path, str | None]) -> StateBefore:
    return StateBefore(
        release,
        dict(texts.values()),
        {path: 0o600 for path, _ in texts.values()},
        runs=False,
        units={},
    )


@pytest.mark.parametrize("kind", [CreateFile, ReplaceFile, EditConfiguration])
@pytest.mark.parametrize("old", [None, "old\n"])
@pytest.mark.parametrize("is_applied", [True, False])
def test_a_written_file_is_undone(
    kind: type[FileStep], old: str | None, is_applied: bool, tmp_path: Path
) -> None:
    """Also where the step was not reached, and twice."""
    path = tmp_path / "unit"
    if old is not None:
        files.write(path, old, 0o600)
    step, run = kind(Artefact(path, "new\n", 0o644), reason="x"), context(tmp_path)
    run.before = state_before(unit=(path, old))
    if is_applied:
        step.apply(run)
        assert path.read_text() == "new\n"
        assert path.stat().st_mode & 0o777 == 0o644
    for _ in range(2):
        step.undo(run)
        assert installed_files.read(path).text == old
    assert old is None or path.stat().st_mode & 0o777 == 0o600


def test_an_operators_file_is_not_undone(tmp_path: Path) -> None:
    """The state before does not have it: a key that was made stays."""
    path = tmp_path / "proxy_key"
    step, run = CreateFile(Artefact(path, "key\n", 0o600, keep=True), reason="x"), context(tmp_path)
    run.before = state_before()
    step.apply(run)
    step.undo(run)
    assert path.read_text() == "key\n"


def make_release(places: paths.Paths, name: str) -> None:
    release_records.write(places.releases / name, id=name)


def test_an_undone_switch_leaves_the_previous_release_alone(tmp_path: Path) -> None:
    places, run = paths.system(tmp_path), context(tmp_path)
    for name in ("older", "old", "new"):
        make_release(places, name)
    for name in ("older", "old"):
        store.switch(places, name)
        store.confirm(places)
    run.before = replace(state_before(release="old"), previous_release="older")
    step = SwitchRelease(wanted("new"), reason="x")
    step.apply(run)
    assert store.previous(places) == "old"
    step.undo(run)
    assert (store.active_release(places), store.previous(places)) == ("old", "older")


@pytest.mark.parametrize("old", [None, "old"])
def test_a_switch_is_undone(old: str | None, tmp_path: Path) -> None:
    places, run = paths.system(tmp_path), context(tmp_path)
    for name in ("old", "new"):
        make_release(places, name)
    if old:
        store.switch(places, old)
    run.before = state_before(release=old)
    step = SwitchRelease(wanted("new"), reason="x")
    step.apply(run)
    assert store.active_release(places) == "new"
    for _ in range(2):
        step.undo(run)
        assert store.active_release(places) == old


def test_an_edited_file_is_kept_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "unit"
    artefact = Artefact(path, "new\n", 0o644)
    for edited, copies in ((False, 0), (True, 1)):
        path.write_text("mine\n")
        ReplaceFile(artefact, reason="x", edited=edited).apply(context(tmp_path))
        assert path.read_text() == "new\n"
        assert len(list(tmp_path.glob("unit.kept-*"))) == copies
    Remove(path, reason="x", edited=True).apply(context(tmp_path))
    assert not path.exists()
    assert len(list(tmp_path.glob("unit.kept-*"))) == 2


def test_a_mode_is_set(tmp_path: Path) -> None:
    path = tmp_path / "env"
    files.write(path, "x", 0o644)
    SetMode(Artefact(path, "", 0o600), reason="x").apply(context(tmp_path))
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_hand_made_service_is_kept_before_its_first_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, whichever of its files is the first to change, and before that change."""
    drop_in, unit = tmp_path / "old.conf", tmp_path / "unit"
    drop_in.write_text("mine\n")
    unit.write_text("mine\n")
    kept: list[tuple[str, ...]] = []

    def keep(_made: object, _paths: object, targets: Iterator[str]) -> None:
        kept.append(tuple(Path(target).read_text() for target in targets))

    monkeypatch.setattr("optictl.operations.previous_service.keep", keep)
    run = replace(context(tmp_path), hand_made_files=frozenset([drop_in, unit]))
    run.hand_made = object()  # type: ignore[assignment]
    by_hand = ReplaceFile(
        Artefact(unit, "new\n", 0o644), reason="x", edited=True, of_hand_made=True
    )
    for step in (MoveAside(drop_in, reason="x"), by_hand):
        step.apply(run)
    assert kept == [("mine\n", "mine\n")]
    assert not drop_in.exists()
    assert not list(tmp_path.glob("unit.kept-*")), "the record has it"
