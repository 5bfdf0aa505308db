"""upgrade and rollback: build, prove against the live upstream, switch, prove again, or roll
back.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from optictl.checks import catalog
from optictl.deployment import render
from optictl.deployment.artefacts import Artefact
from optictl.deployment.config import Config, with_version
from optictl.deployment.paths import Paths
from optictl.errors import (
    MissingFact,
    NotInstalled,
    OptictlError,
    ProofFailed,
    ReleaseDamaged,
    ReleaseFailed,
    RolledBack,
)
from optictl.facts import units
from optictl.facts.deployment import Deployment
from optictl.host import files
from optictl.operations import deployment_lock, install, previous_service, transaction
from optictl.operations.canary import Canary, Proof, refuse_failed, smokes
from optictl.operations.context import Context
from optictl.operations.deployment_lock import Done
from optictl.operations.installation import PLAIN, Circumstances, Installation
from optictl.operations.steps import (
    BuildRelease,
    ConfirmRelease,
    EditConfiguration,
    ProofStep,
    ProveCanary,
    Remove,
    Step,
    SwitchRelease,
)
from optictl.releases import failures, integrity, store
from optictl.releases.locks import ReleaseSpec
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
    return _with_proof(install.plan_install(wanted, paths, given=given), config_path)


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
    again = paths.command(f"upgrade {releases.records[name].optillm}")
    if failure := releases.failed.get(name):
        raise ReleaseFailed(
            f"the previous release, {name}, failed on {failure}",
            remedy=f"{again} tries it again",
        )
    if wrong := integrity.integrity_problems(paths.releases / name):
        raise ReleaseDamaged(
            f"the previous release, {name}, is broken: {wrong[0]}", remedy=f"{again} rebuilds it"
        )
    return name


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
    return replace(installation, steps=steps)


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
    steps: list[Step] = [s for s in installation.steps if isinstance(s, ProofStep)]
    return replace(installation, steps=steps)


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
        OptictlError: nothing was changed: the machine changed since the plan was made, or a secret
            is missing, or a file was edited and `force` not given.
    """
    upstream_key, proxy_key = _keys(shown.paths)
    with deployment_lock.decided(shown, plan_again, force) as now:
        context = install.context_of(now, progress, python, wheelhouse)
        active_release = store.active_release(now.paths)

        def canary(serves: bool) -> Canary:
            return Canary(config, active_release, upstream_key, proxy_key, serves, report_proof)

        before = _prove(now, context, active_release, canary, done)
        if all(isinstance(step, ProofStep) for step in shown.steps):
            return
        now = install.with_built_release(now, context)
        with transaction.rollback_on_failure(now, context):
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
        install.apply_steps(_of(now, BuildRelease), context, done)
        before = health(now.paths)
        context.canary = canary(bool(before))
        install.apply_steps(_of(now, ProveCanary), context, done)
    except OptictlError as failure:
        _record_failure(now, failure.what)
        active = f"{active_release} is still active" if active_release else "no release is active"
        raise RolledBack(
            f"{now.want.name} did not prove itself: {failure.what}; {active}",
            remedy=failure.remedy or units.explaining_command(now.paths),
            detail=failure.detail,
        ) from None
    return before


def _record_failure(now: Installation, reason: str) -> None:
    """A release that was built and did not prove itself failed.

    Not the previous one: it has served, and the proof also fails where the upstream does.
    """
    name, paths = now.want.name, now.paths
    if name in store.complete(paths) and name != store.previous(paths):
        with suppress(OSError):
            failures.record(paths.releases / name, reason)


def _of(installation: Installation, kind: type[ProofStep]) -> list[Step]:
    return [step for step in installation.steps if isinstance(step, kind)]


def _prove_again(
    now: Installation, before: dict[str, Result], proxy_key: str, progress: Progress
) -> None:
    """Raise OptictlError unless what serves now is as healthy as before, and a strategy runs."""
    refuse_worse(before, now.paths)
    if before:
        progress(f"proving {now.want.name} once more, on port {now.config.listen.port}")
        first = now.config.strategies[:1]
        refuse_failed(smokes(now.config, now.config.url, proxy_key, first, progress))
