"""upgrade and rollback: build, prove against the live upstream, switch, prove again, or roll
back.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from optictl.checks import catalog
from optictl.deployment import render
from optictl.deployment.artefacts import Artefact
from optictl.deployment.config import Config
from optictl.deployment.config_yaml import with_version
from optictl.deployment.paths import Paths
from optictl.errors import (
    MissingFact,
    NoLock,
    NotInstalled,
    NotReady,
    OptictlError,
    ProofFailed,
    ReleaseDamaged,
    ReleaseFailed,
    RolledBack,
)
from optictl.facts import units
from optictl.facts.deployment import Deployment
from optictl.host import files
from optictl.operations import (
    deployment_lock,
    install,
    preflight,
    previous_service,
    transaction,
)
from optictl.operations.canary import Canary, Proof, compared, refuse_failed, smokes
from optictl.operations.context import Context
from optictl.operations.deployment_lock import Done
from optictl.operations.installation import PLAIN, Circumstances, Installation
from optictl.operations.steps import (
    BuildRelease,
    ConfirmRelease,
    EditConfiguration,
    KeepLock,
    ProofStep,
    ProveCanary,
    Remove,
    Step,
    SwitchRelease,
    TryPromises,
)
from optictl.releases import failures, integrity, locks, store, versions
from optictl.releases.locks import ReleaseSpec
from optictl.releases.release_record import ReleaseRecord
from optictl.results import Progress, Result

#: The tiers of health that cost nothing. What they say before a change must not be worse after it.
_TIERS = ("health.alive", "health.locked", "health.connected", "process.guarded")


# -- what is planned


def plan_upgrade(
    config: Config, config_path: Path, paths: Paths, version: str, given: Circumstances = PLAIN
) -> Installation:
    """What an upgrade to this version of OptiLLM would do now. Reads, never writes.

    Raises:
        OptictlError: there is no lock for it, or the configuration cannot be edited.
    """
    wanted = config.model_copy(
        update={"optillm": config.optillm.model_copy(update={"version": version})}
    )
    try:
        installation = install.plan_install(wanted, paths, given=given)
    except NoLock:
        versions.refuse_missing(version, paths, config.optillm.profile)
        raise
    planned = _with_promises(_with_proof(installation, config_path))
    planned = _with_lock(planned, given.lock)
    return replace(planned, problems=[*planned.problems, *_older(planned)])


def _older(installation: Installation) -> list[Result]:
    """A note where the version is older than the active one."""
    paths, version = installation.paths, installation.want.version
    releases = store.read(paths)
    active = releases.records[releases.active] if releases.active else None
    if active is None or not versions.is_older(version, active.optillm):
        return []
    previous = releases.records[releases.previous] if releases.previous else None
    is_previous = previous is not None and previous.optillm == version
    back = f"{paths.command('rollback')} returns to this version" if is_previous else ""
    return [preflight.older(version, active.optillm, back)]


def _with_lock(installation: Installation, lock: Path | None) -> Installation:
    """With a step that keeps a new lock once its release is proven."""
    if lock is None:
        return installation
    text, path = lock.read_text(encoding="utf-8"), installation.paths.locks / lock.name
    if files.read(path) == text:
        return installation
    steps = list(installation.steps)
    at = sum(isinstance(step, ProofStep) for step in steps)
    reason = "its release is proven"
    steps.insert(at, KeepLock(Artefact(path, text, 0o644), reason=reason))
    return replace(installation, steps=steps)


def _with_promises(installation: Installation) -> Installation:
    """With a conformance run of a release that is there already; a build has its own."""
    steps = installation.steps
    if not steps or not isinstance(steps[0], ProveCanary):
        return installation
    reason = "its promises are tried on a free port, against the stand-in"
    return replace(installation, steps=[TryPromises(installation.want, reason=reason), *steps])


def plan_rollback(config: Config, config_path: Path, paths: Paths) -> Installation:
    """What returning to the previous release would do now. Reads, never writes.

    Raises:
        OptictlError: there is none, it failed, or it is broken.
    """
    releases = store.read(paths)
    name = _previous(releases, paths)
    record = releases.records[name]
    optillm = config.optillm.model_copy(
        update={"version": record.optillm, "profile": record.profile}
    )
    want = ReleaseSpec(record.id, record.optillm, record.profile, Path(), (), name)
    return _with_proof(
        install.plan_install(config.model_copy(update={"optillm": optillm}), paths, release=want),
        config_path,
    )


def _previous(releases: store.Releases, paths: Paths) -> str:
    """The name of the release to return to."""
    name = releases.previous
    if name is None:
        raise NotInstalled(
            "there is no previous release",
            remedy=f"{paths.command('releases')} lists what there is",
        )
    again = _again(releases.records[name], paths)
    if failure := releases.failed.get(name):
        raise ReleaseFailed(
            f"the previous release, {name}, failed on {failure}",
            remedy=again,
        )
    if wrong := integrity.integrity_problems(paths.releases / name):
        raise ReleaseDamaged(f"the previous release, {name}, is broken: {wrong[0]}", remedy=again)
    return name


def _again(record: ReleaseRecord, paths: Paths) -> str:
    """The command that builds or tries a release again, where its version still has a lock."""
    if locks.has_lock(record.optillm, record.profile, paths):
        return f"{paths.command(f'upgrade {record.optillm}')} tries it again"
    return f"{paths.command('upgrade --list')} shows the versions that have a lock"


def _with_proof(installation: Installation, config_path: Path) -> Installation:
    """With the canary behind the build, and the configuration's new version behind everything
    that was proven.
    """
    steps = list(installation.steps)
    if any(isinstance(step, (SwitchRelease, ConfirmRelease)) for step in steps):
        builds = sum(isinstance(step, BuildRelease) for step in steps)
        reason = (
            "every enabled strategy is asked on a free port, through the live upstream; "
            "that costs tokens"
        )
        steps.insert(builds, ProveCanary(installation.want, reason=reason))
    if edit := _edit(installation, config_path):
        # the version in the operator's file is the last to change: until then `install` returns to
        # the old one
        at = next((i for i, step in enumerate(steps) if isinstance(step, Remove)), len(steps))
        steps.insert(at, edit)
    problems = [*_foreground(installation, config_path), *installation.problems]
    return replace(installation, steps=steps, problems=problems)


#: The problem of a service that `optictl run` serves: it would serve the old release on.
_FOREGROUND = "preflight.foreground"


def _foreground(installation: Installation, config_path: Path) -> list[Result]:
    """The problem of a service that `optictl run` serves, where a release is activated."""
    paths = installation.paths
    switches = any(isinstance(step, SwitchRelease) for step in installation.steps)
    if not switches or units.read_units(paths) is not None:
        return []
    deployment = Deployment(paths, config_path)
    if (pid := deployment.own_process) is None:
        return []
    return [preflight.foreground(paths, pid, deployment.end(pid))]


def _edit(installation: Installation, config_path: Path) -> EditConfiguration | None:
    """The version in the operator's configuration, where it is another one."""
    text = files.read(config_path)
    version = installation.config.optillm.version
    edited = (
        render.configuration(installation.config)
        if text is None
        else with_version(text, str(config_path), version)
    )
    if edited == text:
        return None
    old, new = (text or "").splitlines(keepends=True), edited.splitlines(keepends=True)
    diff = "".join(difflib.unified_diff(old, new, str(config_path), str(config_path)))
    artefact = Artefact(config_path, edited, files.file_facts(config_path).mode or 0o644)
    return EditConfiguration(artefact, reason=f"OptiLLM {version}", diff=diff)


def up_to_the_proof(installation: Installation) -> Installation:
    """The same, ended before anything active is touched."""
    steps: list[Step] = [s for s in installation.steps if isinstance(s, (ProofStep, KeepLock))]
    problems = [p for p in installation.problems if p.id != _FOREGROUND]
    return replace(installation, steps=steps, problems=problems)


# -- proof


def health(paths: Paths) -> dict[str, Result]:
    """The tiers of health of what serves now; none where nothing does."""
    deployment = Deployment(paths)
    try:
        deployment.live  # noqa: B018
    except MissingFact:
        return {}
    return {r.id: r for r in catalog.run(catalog.select(_TIERS), deployment) if r.id in _TIERS}


def worse(before: dict[str, Result], after: dict[str, Result]) -> list[Result]:
    """The tiers that were good and are not any more. Pure."""
    return [
        after[id]
        for id, r in before.items()
        if r.status == "pass" and id in after and after[id].status != "pass"
    ]


def refuse_worse(before: dict[str, Result], paths: Paths) -> None:
    """Raise OptictlError if what serves now is worse than it was, or no longer serves."""
    after = health(paths)
    if before and not after:
        raise ProofFailed("nothing serves any more")
    if wrong := worse(before, after):
        raise ProofFailed("; ".join(f"{r.id}: {r.found}" for r in wrong))


# -- doing it


def prove_and_switch(
    shown: Installation,
    plan_again: Callable[[], Installation],
    config: Config,
    python: Path | None,
    wheelhouse: Path | None,
    progress: Progress,
    done: Done,
    *,
    force: bool = False,
    report_proof: Callable[[Proof], None],
) -> None:
    """Build, prove, switch, prove again. A plan that ends at the proof switches nothing.

    `config` is the active configuration; `report_proof` gets what the canary did.

    Raises:
        RolledBack: a step or a proof failed; the release that was active is active.
        OptictlError: nothing was changed: another plan is due, a secret is missing, or `force` is.
    """
    upstream_key, proxy_key = _keys(shown.paths)
    with deployment_lock.decided(shown, plan_again, force) as now:
        context = install.context_of(now, progress, python, wheelhouse)
        active_release = store.active_release(now.paths)

        def canary(serves: bool) -> Canary:
            return Canary(config, active_release, upstream_key, proxy_key, serves, report_proof)

        before = _prove(now, context, active_release, canary, done)
        if all(isinstance(step, (ProofStep, KeepLock)) for step in shown.steps):
            install.apply_steps(_of(now, KeepLock), context, done)
            return
        now = install.with_built_release(now, context)
        with _without_failed_lock(now), transaction.rollback_on_failure(now, context):
            connected = previous_service.was_connected(now.hand_made)
            install.activate(now, context, done)
            install.verify_serving(now, connected)
            _prove_again(now, before, proxy_key, progress)
            store.confirm(now.paths)
        install.clean_up(now, context, done)


def _keys(paths: Paths) -> tuple[str, str]:
    """The upstream key and the proxy key.

    Raises:
        OptictlError: one is missing.
    """
    deployment = Deployment(paths)
    try:
        return deployment.upstream_key, deployment.proxy_key
    except MissingFact as missing:
        raise MissingFact(
            str(missing), remedy=paths.command("check --only env --only key")
        ) from None


def _prove(
    now: Installation,
    context: Context,
    active_release: str | None,
    canary: Callable[[bool], Canary],
    done: Done,
) -> dict[str, Result]:
    """Build the release and prove it; returns the health of what serves, before anything active is
    touched.

    Raises:
        RolledBack: it could not be built, or did not prove itself.
    """
    try:
        for kind in (BuildRelease, TryPromises):
            install.apply_steps(_of(now, kind), context, done)
        before = health(now.paths)
        context.canary = canary(bool(before))
        install.apply_steps(_of(now, ProveCanary), context, done)
    except OptictlError as failure:
        _record_failure(now, failure)
        active = f"{active_release} is still active" if active_release else "no release is active"
        raise RolledBack(
            f"{now.want.name} did not prove itself: {failure.what}; {active}",
            remedy=failure.remedy or units.explaining_command(now.paths),
            detail=failure.detail,
        ) from None
    return before


def _record_failure(now: Installation, failure: OptictlError) -> None:
    """A release that was built and did not prove itself failed.

    Not the previous one: it has served, and the proof also fails where the upstream does.
    """
    name, paths = now.want.name, now.paths
    if name in store.complete(paths) and name != store.previous(paths):
        with suppress(OSError):
            failures.record(paths.releases / name, failure.what)
    if failure.code in _UNPROVEN:
        _remove_lock(now)


#: The codes of failures that are the release's, not those of a tool or a disk.
_UNPROVEN = (ProofFailed.code, NotReady.code)


def _remove_lock(now: Installation) -> None:
    """Remove a kept lock whose release was built now and failed; nothing may recommend it.

    A new lock is not there yet. One whose release was proven before stays: it is not to blame.
    """
    lock = now.want.lock
    if lock.parent == now.paths.locks and any(isinstance(s, BuildRelease) for s in now.steps):
        with suppress(OSError):
            files.remove(lock)


def keep_lock(built: Installation) -> None:
    """Keep the lock of a release that was built and not activated."""
    for step in built.steps:
        if isinstance(step, KeepLock):
            step.keep()


@contextmanager
def _without_failed_lock(now: Installation) -> Iterator[None]:
    """Remove a kept lock if its release is activated and rolled back as a failed one."""
    try:
        yield
    except RolledBack:
        if failures.of(now.want.directory(now.paths)) is not None:
            _remove_lock(now)
        raise


def _of(installation: Installation, kind: type[Step]) -> list[Step]:
    return [step for step in installation.steps if isinstance(step, kind)]


def _prove_again(
    now: Installation, before: dict[str, Result], proxy_key: str, progress: Progress
) -> None:
    """Raise OptictlError unless what serves now is as healthy as before, and a strategy runs.

    The canary has compared its effect: chance does not roll back a release.
    """
    refuse_worse(before, now.paths)
    if before:
        progress(f"proving {now.want.name} once more, on port {now.config.listen.port}")
        first = now.config.strategies[:1]
        again = smokes(now.config, now.config.url, proxy_key, first, progress)
        refuse_failed(compared(again, ()))
