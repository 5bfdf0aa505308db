"""install: read the facts, plan, apply, each once; in an order that does not disturb what runs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from optictl.deployment import render
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import NotReady, ProgramInHome, ProofFailed, UnsafePath
from optictl.facts import installed_files, units
from optictl.host import files, network, program
from optictl.operations import (
    current_state,
    deployment_lock,
    file_changes,
    plan,
    preflight,
    previous_service,
    transaction,
)
from optictl.operations.context import Context
from optictl.operations.current_state import CurrentState
from optictl.operations.deployment_lock import Done
from optictl.operations.installation import PLAIN, Circumstances, Installation
from optictl.operations.steps import (
    BuildRelease,
    ConfirmRelease,
    CreateFile,
    FileStep,
    HandOver,
    MoveAside,
    ProofStep,
    RecordFiles,
    Remove,
    ReplaceFile,
    StartService,
    StartUnit,
    Step,
    StopTrial,
)
from optictl.proof import trial
from optictl.releases import release_record, store
from optictl.releases.locks import ReleaseSpec
from optictl.results import Progress, Result
from optictl.takeover import table
from optictl.takeover.handmade import HandMade

# -- what is planned


def plan_install(
    config: Config,
    paths: Paths,
    start: bool = True,
    release: ReleaseSpec | None = None,
    given: Circumstances = PLAIN,
) -> Installation:
    """What `install` would do now. Reads, never writes.

    `start`: systemd, where it runs, is to run it. `release`: one that is there already, instead of
    the one that the configuration asks for.

    Raises:
        OptictlError: a directory of the deployment belongs to another user, or is a link that leads
            out of it.
    """
    if config.monitoring.timer and not paths.is_private:
        _refuse_unfit_program(paths)
    _refuse_foreign(config, paths)
    state = current_state.read(config, paths, start=start, release=release, lock=given.lock)
    steps = _steps(state, config, paths, start)
    aside = {step.path for step in steps if isinstance(step, MoveAside)}
    drop_ins = [path for path in state.drop_ins if path not in aside]
    problems = _preflight(config, paths, steps, state, drop_ins, given) if steps else []
    return Installation(
        config,
        paths,
        state.want,
        steps,
        start,
        problems,
        state.hand_made,
        _table(state.hand_made, config, paths) if state.hand_made else [],
        state.artefacts,
        state.manifest,
        state.host,
        drop_ins,
    )


def _steps(state: CurrentState, config: Config, paths: Paths, start: bool) -> list[Step]:
    """Every step, the cleaning up at the end. Pure, except that it reads the user's id."""
    release = plan.Release(
        state.want, state.built, state.releases.active, state.broken, state.unit_first
    )
    steps = plan.installation(
        state.artefacts,
        state.installed,
        os.geteuid(),
        state.manifest,
        release,
        paths,
        state.running,
        _taken_over(state, config, paths),
    )
    if state.releases.active == state.want.name and not state.releases.links.is_proven:
        reason = "an interrupted optictl activated it and did not prove it"
        steps.append(ConfirmRelease(state.want, reason=reason))
    if unrecorded := state.unrecorded:
        reason = f"it does not name {len(unrecorded)} files of this deployment"
        steps.append(RecordFiles(paths.manifest, reason=reason))
    interrupted = "an interrupted optictl left it"
    steps += [Remove(path, reason=interrupted, cleanup=True) for path in state.leftovers]
    steps += _stale_metrics(config, state.metrics)
    if start:  # else an older release may still be running
        steps += _surplus(config, paths, state)
    if state.has_left_over_trial:
        unit = f"{paths.trial_name}.service"
        steps.append(StopTrial(unit, reason=interrupted, cleanup=True))
    return steps


def _taken_over(state: CurrentState, config: Config, paths: Paths) -> plan.TakenOver | None:
    hand_made = state.hand_made
    if hand_made is None:
        return None
    holds_port = hand_made.active and hand_made.port == config.listen.port
    bridged = state.running is not None and holds_port and paths.scope == "system"
    drop_ins = [path for path, _ in hand_made.drop_ins if _goes_aside(path)]
    return plan.TakenOver(drop_ins, bridged, hand_made.redact)


#: Where an operator's files lie; what a package brought stays.
_OPERATORS = (Path("/etc"), Path("/run"), Path("/home"), Path("/root"))


def _goes_aside(drop_in: Path) -> bool:
    """Whether a drop-in is the hand-made unit's own, not one for every service."""
    own = drop_in.parent.name not in ("service.d", "socket.d")
    return own and any(drop_in.is_relative_to(place) for place in _OPERATORS)


def _table(hand_made: HandMade, config: Config, paths: Paths) -> list[table.Row]:
    try:
        key = (files.read(paths.proxy_key) or "").strip() or None
    except PermissionError:
        key = None
    return table.rows(hand_made, config, paths, key, dynamic=paths.scope == "system")


def _preflight(
    config: Config,
    paths: Paths,
    steps: Sequence[Step],
    state: CurrentState,
    drop_ins: Sequence[Path],
    given: Circumstances,
) -> list[Result]:
    """What would make this plan fail, and what should be known before it."""
    running, hand_made = state.running, state.hand_made
    own_units = [*(running.units if running else ()), *([hand_made.unit] if hand_made else [])]
    facts = preflight.read_facts(
        config,
        paths,
        builds=any(isinstance(step, BuildRelease) for step in steps),
        starts=running is not None,
        python=given.python,
        own_units=own_units,
        drop_ins=drop_ins,
    )
    return preflight.judge(
        config, paths, facts, starts=running is not None, secrets_come=given.secrets_come
    )


def _refuse_unfit_program(paths: Paths) -> None:
    """Raise OptictlError unless the timer's unit can run this optictl, and only root can change
    what root then runs.
    """
    if problem := program.unfit_reason(as_root=paths.scope == "system"):
        raise ProgramInHome(
            f"monitoring.timer: the unit cannot run this optictl: {problem}",
            remedy="install it for the whole machine (UV_TOOL_DIR=/opt/uv-tools "
            "UV_TOOL_BIN_DIR=/usr/local/bin uv tool install ...) and run that one's "
            f"{paths.command('install')}, or set monitoring.timer to false",
        )


def _stale_metrics(config: Config, path: Path | None) -> list[Remove]:
    """The removal of metrics that no unit writes any more: they would report success for ever."""
    monitoring = config.monitoring
    if path is None or (monitoring.timer and monitoring.textfile == str(path)):
        return []
    return [Remove(path, reason="no unit writes it any more", cleanup=True)]


def _refuse_foreign(config: Config, paths: Paths) -> None:
    """Raise OptictlError if another user could lead what is written here to another place."""
    uid, home = os.geteuid(), render.home(config, paths)
    for place in (paths.etc, paths.opt, paths.releases, paths.home, home, home / ".optillm"):
        facts = files.file_facts(place)
        if facts.kind == "missing":
            continue
        # these three directories may be links that the operator made
        if facts.kind == "link" and place not in (paths.etc, paths.opt, paths.home):
            raise UnsafePath(
                f"{place} is a link, not a directory", remedy=f"rm {shlex.quote(str(place))}"
            )
        owners = {facts.uid, files.file_facts(place.resolve()).uid} - {0, uid}
        if owners:
            raise UnsafePath(
                f"{place} belongs to uid {owners.pop()}, not {uid}: "
                "that user could change what is put there",
                remedy=f"chown -R {uid} {shlex.quote(str(place))}, if you trust its content; "
                "or deploy as its owner",
            )


def _surplus(config: Config, paths: Paths, state: CurrentState) -> list[Remove]:
    """The removal of releases beyond `releases.keep`, as they will be when the wanted one is
    active.
    """
    want, previous = state.want.name, state.releases.links.previous_of(state.want.name)
    names = [*(name for name in state.releases.records if name != want), want]
    reason = f"releases.keep is {config.releases.keep}"
    return [
        Remove(paths.releases / name, reason=reason, cleanup=True)
        for name in store.surplus(
            names, config.releases.keep, want, previous, state.releases.failed
        )
    ]


# -- doing it


def apply_install(
    shown: Installation,
    plan_again: Callable[[], Installation],
    python: Path | None,
    wheelhouse: Path | None,
    progress: Progress,
    done: Done,
    force: bool = False,
) -> None:
    """Apply a planned installation. A step that fails leaves the active release active.

    Raises:
        OptictlError: a step failed; what was done so far is complete, and a second run continues.
            Or the machine changed since the plan was made, or a file was edited and `force` not
            given.
    """
    with deployment_lock.decided(shown, plan_again, force) as now:
        context = context_of(now, progress, python, wheelhouse)
        if builds := [step for step in now.steps if isinstance(step, BuildRelease)]:
            apply_steps(builds, context, done)
            now = with_built_release(now, context)
        with transaction.rollback_on_failure(now, context):
            connected = previous_service.was_connected(now.hand_made)
            activate(now, context, done)
            verify_serving(now, connected)
            store.confirm(now.paths)
        clean_up(now, context, done)


def build_beside(
    shown: Installation,
    python: Path | None,
    wheelhouse: Path | None,
    progress: Progress,
    done: Done,
) -> None:
    """Build and prove the wanted release where it is not there yet. The active one is not touched.

    Raises:
        OptictlError: it could not be built, or did not prove itself.
    """
    paths = shown.paths
    with deployment_lock.locked(paths):
        deployment_lock.refuse(
            problem for problem in shown.blockers if problem.id in preflight.OF_A_BUILD
        )
        # another optictl may have built it since the plan was made
        _, built, _ = store.standing(shown.want, paths, store.read(paths))
        if not built:
            builds = [step for step in shown.steps if isinstance(step, BuildRelease)]
            apply_steps(builds, context_of(shown, progress, python, wheelhouse), done)


def context_of(
    installation: Installation, say: Progress, python: Path | None, wheelhouse: Path | None
) -> Context:
    """What the steps of this installation share."""
    hand_made_files: frozenset[Path] = frozenset()
    if installation.hand_made is not None:
        aside = (step.path for step in installation.steps if isinstance(step, MoveAside))
        hand_made_files = frozenset([installation.paths.service, *aside])
    return Context(
        installation.config,
        installation.paths,
        say,
        installation.host,
        installation.drop_ins,
        python,
        wheelhouse,
        hand_made=installation.hand_made,
        hand_made_files=hand_made_files,
    )


def apply_steps(steps: Sequence[Step], context: Context, done: Done) -> None:
    """Apply these steps in order."""
    for step in steps:
        step.apply(context)
        done(step)


def with_built_release(installation: Installation, context: Context) -> Installation:
    """The same with the texts that are right now that the release is built: a unit names its
    interpreter's directory.

    The facts are read and the files rendered a second time only here, and rendered only where the
    facts are others.
    """
    paths, want = installation.paths, installation.want
    host = units.host_of(release_record.read(want.directory(paths)), None)
    if host == installation.host:
        return installation
    context.host = host
    artefacts = current_state.render_artefacts(installation.config, paths, host)
    texts = {artefact.path: artefact for artefact in artefacts if not artefact.keep}
    steps = [
        replace(step, artefact=texts.get(step.artefact.path, step.artefact))
        if isinstance(step, FileStep)
        else step
        for step in installation.steps
    ]
    return replace(installation, steps=steps, artefacts=artefacts, host=host)


def activate(installation: Installation, context: Context, done: Done) -> None:
    """Apply every step between the proof and the cleaning up, in order. Call it with the lock
    held.

    The manifest names each text before it is written, so that optictl knows its own after a kill at
    any point.
    """
    paths = installation.paths
    texts = {
        str(artefact.path): artefact.text
        for artefact in current_state.rendered(installation.artefacts)
    }
    written = {
        step.target for step in installation.steps if isinstance(step, (CreateFile, ReplaceFile))
    }
    manifest = installation.manifest.intending(
        {
            path: text
            for path, text in texts.items()
            if path in written or not installation.manifest.wrote(path, text)
        }
    )
    file_changes.write_manifest(paths, manifest)
    steps = [s for s in installation.steps if not (s.cleanup or isinstance(s, ProofStep))]
    with context.trials:
        apply_steps(steps, context, done)
    file_changes.write_manifest(paths, installed_files.as_it_is(manifest))


def verify_serving(installation: Installation, connected: bool) -> None:
    """Raise OptictlError unless a service that was started answers on its port.

    `connected`: the old service reached LiteLLM, and the new one has to.
    """
    starting = (StartService, StartUnit, HandOver)
    if not any(isinstance(step, starting) for step in installation.steps):
        return
    config = installation.config
    if problem := trial.health_problem(config):
        raise NotReady(f"the service does not answer: {problem}")
    if connected:
        key = (files.read(installation.paths.proxy_key) or "").strip()
        answer = network.request("GET", f"{config.url}/models", key=key, timeout=30)
        if answer.status != 200:
            why = answer.error or answer.status
            raise ProofFailed(f"the service does not reach LiteLLM, which the old one did: {why}")


def clean_up(installation: Installation, context: Context, done: Done) -> None:
    """Remove what is no longer needed. What fails here is left for the next run: the deployment
    is complete.
    """
    steps = [step for step in installation.steps if step.cleanup]
    apply_steps(steps, context, done)
    removed = [step.path for step in steps if isinstance(step, Remove)]
    for path in removed:
        file_changes.remove_empty(path.parents[:2], below=installation.paths.home)
    manifest = installed_files.read_manifest(installation.paths)
    file_changes.write_manifest(installation.paths, manifest.without(map(str, removed)))
