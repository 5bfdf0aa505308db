"""Two optictl at once, and a plan that became old while it was read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from optictl.deployment import paths, render
from optictl.deployment.config import Config
from optictl.errors import OptictlError
from optictl.facts import installed_files
from optictl.host import files, program, systemd
from optictl.host.uv import Interpreter
from optictl.operations import install, preflight, remove
from optictl.operations.installation import Installation
from optictl.operations.steps import Remove
from optictl.releases import build as release_build
from optictl.releases import integrity, interpreters, locks, release_record, store
from testing import release_records


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the releases that were built; nothing real is."""
    ids: list[str] = []

    def build(want: locks.ReleaseSpec, places: paths.Paths, *_: object) -> None:
        ids.append(want.id)
        release_records.write(want.directory(places), id=want.id)

    monkeypatch.setattr(release_build, "build", build)
    monkeypatch.setattr(integrity, "integrity_problems", lambda _: [])
    # pytest's directories are closed to the service's user, and no service is started
    monkeypatch.setattr(preflight, "read_facts", lambda *_, **__: None)
    monkeypatch.setattr(preflight, "judge", lambda *_, **__: [])
    monkeypatch.setattr(
        interpreters,
        "interpreter",
        lambda *_: Interpreter(Path("/usr/bin/python3"), (3, 11, 2), None),
    )
    return ids


def quiet(_: object) -> None:
    """Neither progress nor results are shown."""


def test_a_release_that_another_built_meanwhile_is_not_taken_away(
    tmp_path: Path, built: list[str]
) -> None:
    places = paths.system(tmp_path)
    first, second = (install.plan_install(Config(), places) for _ in range(2))
    for installation in (first, second):
        install.apply_install(
            installation, lambda: install.plan_install(Config(), places), None, None, quiet, quiet
        )
    assert built == [first.want.id]
    assert store.active_release(places) == first.want.id


@pytest.mark.parametrize("what", ["install", "uninstall"])
def test_one_at_a_time(what: str, tmp_path: Path, built: list[str]) -> None:
    places = paths.system(tmp_path)
    installation = install.plan_install(Config(), places)
    files.make_directory(places.opt)
    apply = {
        "install": lambda: install.apply_install(
            installation, lambda: installation, None, None, quiet, quiet
        ),
        "uninstall": lambda: remove.apply_removal(
            [Remove(places.opt, reason="x")], Config(), places, False, quiet, quiet
        ),
    }[what]
    with (
        files.exclusive(places.opt / ".lock"),
        pytest.raises(OptictlError, match="is working on this deployment"),
    ):
        apply()
    assert built == []
    assert places.opt.is_dir()


def test_systemd_that_is_installed_and_did_not_boot_this_machine_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container with the package systemd: see sd_booted(3) for /run/systemd/system."""
    (tmp_path / "systemd/ask-password").mkdir(parents=True)
    monkeypatch.setitem(systemd.RUNTIME, "system", tmp_path / "systemd/system")
    monkeypatch.setattr(systemd.Systemd, "version", lambda _: 252)
    assert not systemd.Systemd("system").available()
    (tmp_path / "systemd/system").mkdir()
    assert systemd.Systemd("system").available()


def test_a_timer_that_would_run_a_program_in_a_home_is_refused_before_anything_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(program, "own_program", lambda: Path("/home/jerry/.local/bin/optictl"))
    config = Config.model_validate({"monitoring": {"timer": True}})
    with pytest.raises(OptictlError) as refused:
        install.plan_install(config, paths.system())
    assert "is in a private home, below /home" in refused.value.what
    assert "UV_TOOL_DIR=" in refused.value.remedy


@pytest.mark.parametrize("is_installed", [False, True])
def test_a_plan_reads_each_fact_once(
    is_installed: bool, tmp_path: Path, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each release.json, each rendered unit, the manifest.

    The plan under the lock is a second reading, on purpose: between the plan that was shown and the
    lock anything may have changed. After a build the facts of the release are read again. The texts
    are rendered again only where those facts differ from what was expected.
    """
    places = paths.system(tmp_path)

    def plan() -> Installation:
        return install.plan_install(Config(), places)

    def apply(installation: Installation) -> None:
        install.apply_install(installation, plan, None, None, quiet, quiet)

    if is_installed:
        apply(plan())
    calls = Counter[str]()

    def counted(module: ModuleType, name: str) -> None:
        original = getattr(module, name)

        def call(*arguments: object) -> object:
            calls[f"{module.__name__.rpartition('.')[2]}.{name}"] += 1
            return original(*arguments)

        monkeypatch.setattr(module, name, call)

    for module, name in (
        (release_record, "read"),
        (render, "unit"),
        (render, "socket"),
        (installed_files, "read_manifest"),
        (store, "read"),
    ):
        counted(module, name)
    installation = plan()
    once = {
        "render.unit": 1,
        "render.socket": 1,
        "installed_files.read_manifest": 1,
        "store.read": 1,
    }
    assert calls == {**once, **({"release_record.read": 1} if is_installed else {})}
    calls.clear()
    if is_installed:
        assert installation.steps == []
        return
    apply(installation)
    # cleaning up reads the manifest that the steps left
    assert {name: calls[name] for name in once} == {**once, "installed_files.read_manifest": 2}
