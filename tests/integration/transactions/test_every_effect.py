"""A failure and a kill at every effect in turn: the old or the new deployment, whole.

Only what takes minutes is replaced: a release here is a small one with a real interpreter, and its
proof is skipped (tests/integration/install and tests/system/systemd have the real ones).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from optictl.deployment import paths, render
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import OptictlError
from optictl.guard import invariants
from optictl.host import files
from optictl.operations import install as installing
from optictl.operations import remove, upgrade
from optictl.operations.installation import Installation
from optictl.operations.proxy_key import new_proxy_key
from optictl.releases import integrity, store
from optictl.releases.locks import ReleaseSpec
from tests.integration.transactions.faults import Kind, run

NOBODY = 65534
#: At each effect: it fails, or the process ends there. The failures are in turn of two kinds.
FAILURES: tuple[Kind, ...] = ("error", "full disk")
OLD = Config().moved(4920, "http://127.0.0.1:4900/v1")
#: The same with another upstream: unit, provider file and relay change together.
MOVED = Config().moved(4920, "http://127.0.0.1:4901/v1")
LATER = OLD.model_copy(update={"optillm": OLD.optillm.model_copy(update={"version": "0.3.13"})})


def quiet(_: object) -> None:
    """Neither progress nor results are shown."""


#: Somebody else's act between a plan that was shown and the lock.
Meanwhile = Callable[[], object]


def install(
    config: Config, places: Paths, force: bool = False, meanwhile: Meanwhile = lambda: None
) -> None:
    def plan() -> Installation:
        return installing.plan_install(config, places)

    planned = plan()
    meanwhile()
    if planned.steps:
        installing.apply_install(planned, plan, None, None, quiet, quiet, force)


def _apply(plan: Callable[[], Installation], config: Config, meanwhile: Meanwhile) -> None:
    planned = plan()
    meanwhile()
    upgrade.prove_and_switch(planned, plan, config, None, None, quiet, quiet, report_proof=quiet)


def go_to(config: Config, version: str, places: Paths, meanwhile: Meanwhile = lambda: None) -> None:
    _apply(
        lambda: upgrade.plan_upgrade(_configured(places), places.config, places, version),
        config,
        meanwhile,
    )


def go_back(config: Config, places: Paths, meanwhile: Meanwhile = lambda: None) -> None:
    _apply(
        lambda: upgrade.plan_rollback(_configured(places), places.config, places), config, meanwhile
    )


def uninstall(places: Paths, purge: bool = False, meanwhile: Meanwhile = lambda: None) -> None:
    planned = remove.plan_removal(places, purge)
    meanwhile()
    remove.apply_removal(planned, OLD, places, purge, quiet, quiet)


def operators_files(config: Config, places: Paths) -> None:
    files.make_directory(places.etc)
    files.write(places.config, render.configuration(config), 0o644)
    files.write(places.env, "OPENAI_API_KEY=x\n", 0o600)
    files.write(places.proxy_key, new_proxy_key() + "\n", 0o600)


@dataclass(frozen=True)
class Operation:
    """What is done, to what, and the active configuration before and after it (None: nothing)."""

    before: tuple[Callable[[Paths], None], ...]
    act: Callable[[Paths], None]
    start: Config | None
    end: Config


def _start(places: Paths) -> None:
    operators_files(OLD, places)
    install(OLD, places)


OPERATIONS = {
    "first install": Operation(
        (lambda p: operators_files(OLD, p),), lambda p: install(OLD, p), None, OLD
    ),
    "reinstall": Operation(
        (_start, lambda p: operators_files(MOVED, p)), lambda p: install(MOVED, p), OLD, MOVED
    ),
    "upgrade": Operation((_start,), lambda p: go_to(OLD, "0.3.13", p), OLD, LATER),
    "rollback": Operation(
        (_start, lambda p: go_to(OLD, "0.3.13", p)), lambda p: go_back(LATER, p), LATER, OLD
    ),
}


def state_of(config: Config | None) -> tuple[str, str] | None:
    """What `in_force` returns for a configuration that is active."""
    return (config.optillm.version, config.upstream.base_url) if config else None


def in_force(places: Paths) -> tuple[str, str] | None:
    """The release and the upstream that a start of the service would use; None: nothing to start.

    Fails where that would not be one whole deployment.
    """
    name = store.active_release(places)
    if name is None:
        return None
    assert integrity.integrity_problems(places.releases / name) == []
    record = json.loads((places.releases / name / "release.json").read_text())
    unit = places.service.read_text()
    assert render.flags_in(unit) <= set(record["flags"])
    home = Path(next(w for w in unit.split() if w.startswith("Environment=HOME=")).split("=", 2)[2])
    upstream = unit.split("--base-url ")[1].split()[0]
    assert (
        invariants.proxy_config_problems(
            (home / ".optillm/proxy_config.yaml").read_text(), upstream
        )
        == []
    )
    for path in (places.socket, places.upstream_socket, places.upstream_service):
        assert path.read_text().startswith("# optillm-proxy")
    return record["optillm"], upstream


def nothing_left(places: Paths) -> list[str]:
    """Files that no deployment consists of."""
    return [
        str(p)
        for p in files.tree(places.etc.parent.parent)
        if p.name.endswith(".new") or ".scratch" in p.parts
    ]


@pytest.mark.parametrize("name", OPERATIONS)
def test_after_every_fault_it_is_one_or_the_other(
    name: str, place: Path, small_releases: None, capsys: pytest.CaptureFixture[str]
) -> None:
    operation = OPERATIONS[name]
    start = place / "start"
    # always at the same path: units name it
    root = place / "root"
    places = paths.system(root)
    for step in operation.before:
        step(places)
    shutil.copytree(root, start, symlinks=True)
    previous = {state_of(operation.start): store.previous(places)}

    def afresh() -> None:
        shutil.rmtree(root)
        shutil.copytree(start, root, symlinks=True)

    whole = run(lambda: operation.act(places), root, "none", 0, OptictlError)
    assert whole.ended == "well"
    assert whole.effects > 5
    start_state, end_state = state_of(operation.start), state_of(operation.end)
    assert in_force(places) == end_state
    assert _configured(places) == operation.end
    previous[end_state] = store.previous(places)
    tried = 0
    after_a_kill = set()
    for number in range(1, whole.effects + 1):
        for kind in (FAILURES[number % 2], "SIGKILL"):
            afresh()
            where = f"{kind} at effect {number} of {whole.effects}"
            outcome = run(lambda: operation.act(places), root, kind, number, OptictlError)
            # an effect that may fail without harm lets the operation end well
            assert outcome.ended in (("killed",) if kind == "SIGKILL" else ("told", "well")), (
                f"{where}: {outcome.ended}"
            )
            tried += 1
            state = in_force(places)
            if outcome.ended == "well":
                assert state == end_state, f"{where}: {state}"
            elif outcome.ended == "told":
                assert state in (start_state, end_state), f"{where}: {state}"
            else:
                after_a_kill.add(state)
            # the operator's file says which of the two is asked for
            config = _configured(places)
            assert config in (operation.start, operation.end), where
            install(config, places)
            assert in_force(places) == state_of(config), where
            assert installing.plan_install(config, places).steps == [], where
            # no release that was activated and never proven
            assert store.previous(places) == previous[state_of(config)], where
            assert nothing_left(places) == [], where
    assert after_a_kill == {start_state, end_state}
    with capsys.disabled():
        print(f"\n{name}: {tried} faults at {whole.effects} effects")


def _configured(places: Paths) -> Config:
    from optictl.facts import config_file

    return config_file.load(places.config)


def test_wanted_is_built_beside_one_that_is_broken(place: Path, small_releases: None) -> None:
    """Also without its interpreter: the broken one stays as it is until the new one is active."""
    places = paths.system(place)
    _start(places)
    broken = places.current.resolve()
    (broken / ".venv/bin/python").unlink()
    assert "is missing" in integrity.interpreter_problem(broken)
    before = sorted(str(p) for p in files.tree(broken))
    planned = installing.plan_install(OLD, places)
    assert [c.action for c in planned.steps] == ["build", "switch"]
    assert "interpreter" in planned.steps[0].reason
    assert sorted(str(p) for p in files.tree(broken)) == before
    install(OLD, places)
    assert store.active_release(places) == f"{broken.name}.2"
    assert installing.plan_install(OLD, places).steps == []


def test_an_edited_file_is_kept_beside(place: Path, small_releases: None) -> None:
    places = paths.system(place)
    _start(places)
    places.service.write_text("# mine\n")
    with pytest.raises(OptictlError, match="not what optictl wrote"):
        install(OLD, places)
    assert places.service.read_text() == "# mine\n"
    install(OLD, places, force=True)
    (kept,) = places.units.glob("optillm-proxy.service.kept-*")
    assert kept.read_text() == "# mine\n"
    assert installing.plan_install(OLD, places).steps == []


def test_what_changed_while_a_plan_was_looked_at_is_not_run_over(
    place: Path, small_releases: None
) -> None:
    """Another process changes things between the plan and the lock: only what was shown is done."""
    places = paths.system(place)
    _start(places)
    changed = "changed while the plan was shown"

    def edit() -> None:
        places.service.write_text("# mine\n")

    for act in (
        lambda: go_to(OLD, "0.3.13", places, meanwhile=edit),
        lambda: uninstall(places, meanwhile=edit),
    ):
        with pytest.raises(OptictlError, match=changed):
            act()
        assert places.service.read_text() == "# mine\n"
        assert store.active_release(places) is not None
        install(OLD, places, force=True)
    # the operator's own file, from which everything follows
    with pytest.raises(OptictlError, match=changed) as refused:
        go_to(OLD, "0.3.13", places, meanwhile=lambda: operators_files(MOVED, places))
    assert str(places.service) in refused.value.detail
    operators_files(OLD, places)
    # somebody else did the same: there is nothing left to do, and nothing is built twice
    go_to(OLD, "0.3.13", places, meanwhile=lambda: go_to(OLD, "0.3.13", places))
    assert len(store.complete(places)) == 2
    new = store.active_release(places)
    # gone back twice would be forth again
    with pytest.raises(OptictlError, match=changed):
        go_back(LATER, places, meanwhile=lambda: go_back(LATER, places))
    assert store.active_release(places) != new
    uninstall(places, meanwhile=lambda: uninstall(places))
    assert not places.opt.exists()


@pytest.mark.root
def test_files_of_somebody_else_are_made_ones_own(place: Path, small_releases: None) -> None:
    places = paths.system(place)
    _start(places)
    current = places.current.resolve()
    mine = (places.service, places.env, places.proxy_key, places.config)
    for path in (*mine, current / "guard/__main__.py"):
        os.chown(path, NOBODY, -1)
    places.env.chmod(0o666)
    planned = installing.plan_install(OLD, places).steps
    shown = {c.target: (c.action, c.reason) for c in planned}
    assert {shown[str(p)][0] for p in (places.env, places.proxy_key, places.config)} == {"owner"}
    assert shown[str(places.service)][0] == "replace"
    assert all(f"belongs to uid {NOBODY}, not 0" in shown[str(p)][1] for p in mine)
    (reason,) = (c.reason for c in planned if c.action == "build")
    assert f"{current.name}/guard/__main__.py belongs to uid {NOBODY}, not 0" in reason
    install(OLD, places)
    assert {path.stat().st_uid for path in mine} == {0}
    assert places.env.stat().st_mode & 0o777 == 0o600
    assert store.active_release(places) == f"{current.name}.2"
    assert installing.plan_install(OLD, places).steps == []


@pytest.mark.root
@pytest.mark.parametrize("which", ["etc", "opt", "releases", "home"])
def test_directories_of_somebody_else_are_refused(
    which: str, place: Path, small_releases: None
) -> None:
    """Their owner could lead whatever is written there to another place."""
    places = paths.system(place)
    _start(places)
    directory: Path = getattr(places, which)
    os.chown(directory, NOBODY, -1)
    before = {p: p.lstat().st_ctime_ns for p in files.tree(place)}
    for act in (lambda: install(MOVED, places), lambda: go_to(OLD, "0.3.13", places)):
        with pytest.raises(OptictlError, match=f"^{directory} belongs to uid {NOBODY}, not 0"):
            act()
    assert {p: p.lstat().st_ctime_ns for p in files.tree(place)} == before


def test_no_link_leads_out_of_the_deployment(place: Path, small_releases: None) -> None:
    places = paths.system(place)
    _start(places)
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    treasure = elsewhere / "proxy_config.yaml"
    treasure.write_text("somebody else's")
    # a directory of the deployment
    inner = places.proxy_config.parent.resolve()
    shutil.rmtree(inner)
    inner.symlink_to(elsewhere)
    with pytest.raises(OptictlError, match="is a link, not a directory") as refused:
        install(OLD, places)
    assert refused.value.remedy == f"rm {inner}"
    inner.unlink()
    install(OLD, places)
    # a file of it, the name that its text has before it is renamed, and the lock
    for path in (places.service, files.temporary(places.service)):
        path.unlink(missing_ok=True)
        path.symlink_to(treasure)
        install(OLD, places, force=True)
        assert not places.service.is_symlink()
    (places.opt / ".lock").unlink()
    (places.opt / ".lock").symlink_to(treasure)
    with pytest.raises(OptictlError, match="symbolic links"):
        install(MOVED, places)
    assert treasure.read_text() == "somebody else's"
    # the deployment's own three may lie elsewhere, where who deploys it has put a link
    (places.opt / ".lock").unlink()
    places.home.rename(elsewhere / "home")
    places.home.symlink_to(elsewhere / "home")
    install(MOVED, places)
    assert installing.plan_install(MOVED, places).steps == []


def test_releases_beyond_those_to_keep_go(place: Path, small_releases: None) -> None:
    places = paths.system(place)
    _start(places)
    first = store.active_release(places)
    go_to(OLD, "0.3.13", places)
    assert store.complete(places) == [first, store.active_release(places)]
    assert store.previous(places) == first
    go_back(LATER, places)
    assert store.active_release(places) == first
    assert _configured(places).optillm.version == "0.3.12"
    one = OLD.model_copy(update={"releases": OLD.releases.model_copy(update={"keep": 1})})
    install(one, places)
    assert store.complete(places) == [first]


def test_what_uninstall_removes_is_what_optictl_made(place: Path, small_releases: None) -> None:
    places = paths.system(place)
    _start(places)
    (places.opt / "mine").write_text("not optictl's")
    drop_in = places.units / "optillm-proxy.service.d" / "local.conf"
    files.make_directory(drop_in.parent)
    drop_in.write_text("[Service]\n")
    for purge, left in ((False, {places.config, places.env, places.proxy_key}), (True, set())):
        uninstall(places, purge)
        assert set(files.tree(place)) == {places.opt / "mine", drop_in, *left}
    assert not places.etc.exists()
    assert remove.plan_removal(places, purge=True) == []


def test_two_names_are_two_deployments(place: Path, small_releases: None) -> None:
    one, other = paths.system(place), paths.system(place, "optillm-two")
    for places in (one, other):
        _start(places)
    before = {p: p.read_bytes() for p in files.tree(one.opt) if p.is_file()}
    uninstall(other, purge=True)
    assert {p: p.read_bytes() for p in files.tree(one.opt) if p.is_file()} == before
    assert installing.plan_install(OLD, one).steps == []
    assert not list(place.rglob("*optillm-two*"))


def test_a_release_that_is_in_force_is_never_surplus() -> None:
    names = ["a", "b", "c", "d"]
    assert store.surplus(names, 2, "d", "c") == ["b", "a"]
    assert store.surplus(names, 3, "a", "d") == ["b"]
    assert store.surplus(names, 1, "a", "b") == ["b", "d", "c"]
    assert store.surplus(["a"], 5, "a", None) == []


def test_wanted_names_its_directory() -> None:
    want = ReleaseSpec("0.3.12-abc", "0.3.12", "proxy", Path(), (), "0.3.12-abc.2")
    assert want.directory(paths.system()) == Path("/opt/optillm-proxy/releases/0.3.12-abc.2")
