"""install: read facts, plan, apply, each step in an order that leaves what runs alone."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from optictl.deployment import artefacts as deployment_artefacts
from optictl.deployment import render
from optictl.deployment.artefacts import Artefact
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import (
    Blocked,
    LocalChanges,
    Locked,
    NotReady,
    OptictlError,
    PlanChanged,
    denied,
)
from optictl.facts import installed_files, units
from optictl.facts.units import Running
from optictl.host import files, network, program
from optictl.operations import (
    file_changes,
    initialize,
    plan,
    preflight,
    previous_service,
    sealed_trial,
    service,
    transaction,
)
from optictl.operations.installation import PLAIN, Circumstances, Installation
from optictl.operations.plan import Change
from optictl.operations.preflight import others_must_reach
from optictl.proof import trial
from optictl.releases import build, interpreters, locks, store
from optictl.releases.locks import Wanted
from optictl.results import Progress, Result
from optictl.takeover import reader, table
from optictl.takeover.handmade import HandMade

Done = Callable[[Change], None]


def plan_install(
    config: Config,
    paths: Paths,
    start: bool = True,
    release: Wanted | None = None,
    given: Circumstances = PLAIN,
) -> Installation:
    """What `install` would do now. Reads, never writes.

    `start`: systemd, where it runs, is to run it. `release`: one that is there already, instead of the one that the
    configuration asks for.

    Raises:
        OptictlError: a directory of the deployment is somebody else's, or a link that leads out of it.
    """
    if config.monitoring.timer and not paths.is_private:
        _refuse_unfit_program(paths)
    _refuse_foreign(config, paths)
    want, built, broken = (
        (release, True, "") if release else store.standing(locks.wanted(config, paths), paths)
    )
    wrote = installed_files.read_manifest(paths)
    artefacts = _artefacts(config, paths, want.name)
    current = store.active_release(paths)
    known = store.guard_flags(paths, want.name)
    unit_first = current is not None and not render.flags_in(
        files.read(paths.service) or ""
    ) <= set(known)
    asked = plan.Release(want.name, built, current, broken, unit_first)
    running = units.running(config, paths) if start else None
    hand_made = None if paths.is_private else _hand_made(paths)
    taken_over = _taken_over(hand_made, config, paths, running)
    found = installed_files.look_at(artefacts, wrote)
    changes = plan.changes(artefacts, found, os.geteuid(), wrote, asked, paths, running, taken_over)
    if unnamed := [
        a
        for a in artefacts
        if not (a.keep or a.directory)
        and found[a.path].text == a.text
        and not wrote.wrote(a.path, a.text)
    ]:
        changes.append(
            Change(
                "replace",
                str(paths.manifest),
                f"it does not name {len(unnamed)} files of this deployment",
            )
        )
    changes += [
        Change("remove", str(p), "an interrupted optictl left it", cleanup=True)
        for p in leftovers(paths, artefacts)
        if p.name != want.name
    ]
    changes += _stale_metrics(config, paths)
    if start:  # else an older release may still be running
        changes += _surplus(config, paths, want.name)
    if running is not None and sealed_trial.leftover(paths):
        target = f"{paths.trial_name}.service"
        changes.append(Change("stop", target, "an interrupted optictl left it", cleanup=True))
    problems = _preflight(config, paths, changes, running, hand_made, given) if changes else []
    rows = _table(hand_made, config, paths) if hand_made else []
    return Installation(config, paths, want, changes, start, problems, hand_made, rows)


def _hand_made(paths: Paths) -> HandMade | None:
    try:
        return reader.read(paths)
    except PermissionError as error:
        raise denied(error.filename) from None


def _taken_over(
    hand_made: HandMade | None, config: Config, paths: Paths, running: Running | None
) -> plan.TakenOver | None:
    if hand_made is None:
        return None
    holds_port = hand_made.active and hand_made.port == config.listen.port
    bridged = running is not None and holds_port and paths.scope == "system"
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
    changes: Sequence[Change],
    running: Running | None,
    hand_made: HandMade | None,
    given: Circumstances,
) -> list[Result]:
    """What would make this plan fail, or is worth to be known before it."""
    builds = any(change.action == "build" for change in changes)
    starts = running is not None
    own = [*(running.found if running else ()), *([hand_made.unit] if hand_made else [])]
    going = {change.target for change in changes if change.action == "aside"}
    staying = [path for path in _drop_ins(paths, running) if str(path) not in going]
    facts = preflight.look(
        config,
        paths,
        builds=builds,
        starts=starts,
        python=given.python,
        own_units=own,
        drop_ins=staying,
    )
    return preflight.judge(config, paths, facts, starts=starts, secrets_come=given.secrets_come)


def _drop_ins(paths: Paths, running: Running | None) -> list[Path]:
    """The drop-ins of the service's unit."""
    read = running.found[paths.service_unit].drop_in_paths if running else ()
    return units.drop_ins(paths, paths.service_unit, read)


def _refuse_unfit_program(paths: Paths) -> None:
    """Raise OptictlError unless the timer's unit can run this optictl, and nobody but root can change what root then runs."""
    if problem := program.unfit_reason(as_root=paths.scope == "system"):
        raise OptictlError(
            f"monitoring.timer: the unit cannot run this optictl: {problem}",
            remedy="install it for the whole machine (UV_TOOL_DIR=/opt/uv-tools UV_TOOL_BIN_DIR=/usr/local/bin uv tool install "
            f"...) and run that one's {paths.command('install')}, or set monitoring.timer to false",
        )


def metrics(paths: Paths) -> Path | None:
    """The file that the installed check's unit writes its metrics to, if it is there."""
    path = render.check_textfile(files.read(paths.check_service) or "")
    return path if path is not None and files.file_facts(path).kind == "file" else None


def _stale_metrics(config: Config, paths: Paths) -> list[Change]:
    """The removal of metrics that nobody writes any more: they would go on saying that all is well."""
    path, wanted = metrics(paths), config.monitoring
    if path is None or (wanted.timer and wanted.textfile == str(path)):
        return []
    return [Change("remove", str(path), "nothing writes it any more", cleanup=True)]


def _refuse_foreign(config: Config, paths: Paths) -> None:
    """Raise OptictlError if somebody else could lead what is written here to another place."""
    uid, home = os.geteuid(), render.home(config, paths)
    for place in (paths.etc, paths.opt, paths.releases, paths.home, home, home / ".optillm"):
        facts = files.file_facts(place)
        if facts.kind == "missing":
            continue
        # the deployment's own three may lie elsewhere, where who deploys it has put a link
        if facts.kind == "link" and place not in (paths.etc, paths.opt, paths.home):
            raise OptictlError(
                f"{place} is a link, not a directory", remedy=f"rm {shlex.quote(str(place))}"
            )
        owners = {facts.uid, files.file_facts(place.resolve()).uid} - {0, uid}
        if owners:
            raise OptictlError(
                f"{place} belongs to uid {owners.pop()}, not {uid}, who could change what is put there",
                remedy=f"chown -R {uid} {shlex.quote(str(place))}, when nothing strange is in it; or deploy as its owner",
            )


def _artefacts(config: Config, paths: Paths, release: str) -> list[Artefact]:
    operators = deployment_artefacts.operators_files(
        render.configuration(config), config, paths, initialize.new_proxy_key()
    )
    host = units.host(paths, release)
    return (
        operators
        + deployment_artefacts.rendered_files(config, paths, host)
        + deployment_artefacts.monitoring_files(config, paths, host)
    )


def leftovers(paths: Paths, artefacts: Sequence[Artefact]) -> list[Path]:
    """What a killed optictl may have left: half-built releases, texts that were not renamed, scratch files."""
    written = [*(a.path for a in artefacts), paths.manifest, paths.current, paths.previous]
    beside = [
        temporary
        for temporary in map(files.temporary, written)
        if files.file_facts(temporary).kind != "missing"
    ]
    scratch = [paths.scratch] if files.file_facts(paths.scratch).kind != "missing" else []
    return [*store.half_built(paths), *beside, *scratch]


def _surplus(config: Config, paths: Paths, wanted: str) -> list[Change]:
    """The removal of releases beyond `releases.keep`, as they will be when `wanted` is in force."""
    current = store.active_release(paths)
    previous = store.previous(paths) if current in (None, wanted) else current
    names = store.complete(paths)
    surplus = store.surplus(
        [*(n for n in names if n != wanted), wanted], config.releases.keep, wanted, previous
    )
    return [
        Change(
            "remove",
            str(paths.releases / name),
            f"releases.keep is {config.releases.keep}",
            cleanup=True,
        )
        for name in surplus
    ]


@contextmanager
def locked(paths: Paths) -> Iterator[None]:
    """Be the only optictl that changes this deployment.

    Raises:
        OptictlError: another one is at work; or a step failed, with what mends it.
    """
    try:
        files.make_directory(paths.opt)
        with files.exclusive(paths.opt / ".lock"):
            try:
                yield
            finally:
                files.remove(paths.scratch)
    except Locked as holder:
        raise Locked(
            f"{holder} is working on this deployment", remedy="wait for it to end"
        ) from None
    except PermissionError as error:
        raise denied(error.filename) from None
    except OSError as error:
        raise OptictlError(
            transaction.words_of(error),
            remedy=f"mend it and run {paths.command('install')} again; what was in force still is",
        ) from None


@contextmanager
def decided(
    shown: Installation, plan_again: Callable[[], Installation], force: bool
) -> Iterator[Installation]:
    """Hold the lock and plan once more: the block gets what was shown, or what another optictl left of it to do.

    Raises:
        OptictlError: something else would be done than was shown, or a file was edited and `force` not given.
    """
    with locked(shown.paths):
        now = plan_again()
        refuse_other(shown.changes, now.changes)
        refuse_blocked(now)
        refuse_edited(now.changes, now.paths, force)
        yield now


def refuse_other(shown: Sequence[Change], now: Sequence[Change]) -> None:
    """Raise OptictlError if a plan holds what nobody was shown."""
    seen = {(c.action, c.target, c.diff, c.edited) for c in shown}
    if other := [
        f"{c.action} {c.target}" for c in now if (c.action, c.target, c.diff, c.edited) not in seen
    ]:
        raise PlanChanged(
            "this deployment changed while the plan was looked at",
            remedy="run the command again and look at the new plan",
            detail="not in the plan that was shown: " + ", ".join(other),
        )


def apply_install(
    shown: Installation,
    plan_again: Callable[[], Installation],
    python: Path | None,
    wheelhouse: Path | None,
    progress: Progress,
    done: Done,
    force: bool = False,
) -> None:
    """Apply a planned installation. A step that fails leaves what was in force in force.

    Raises:
        OptictlError: a step failed; what was done so far is whole, and a second run goes on. Or the machine
            is no longer what it was when the plan was made, or a file was edited and `force` not given.
    """
    with decided(shown, plan_again, force) as now:
        if any(c.action == "build" for c in now.changes):
            build_release(now, python, wheelhouse, progress)
            # a unit names the interpreter's directory, which is known only now
            now = with_texts(now)
        with transaction.rollback_on_failure(now, progress):
            connected = previous_service.was_connected(now.hand_made)
            apply(now, progress, done)
            verify_serving(now, connected)
        clean_up(now, progress, done)


def refuse_blocked(installation: Installation) -> None:
    """Raise OptictlError if preflight found what would make this installation fail."""
    _refuse(installation.blockers)


def _refuse(problems: Iterable[Result]) -> None:
    if blockers := list(problems):
        raise Blocked(
            "; ".join(f"{problem.found}" for problem in blockers),
            remedy="; ".join(
                dict.fromkeys(problem.remedy for problem in blockers if problem.remedy)
            ),
            problems=[problem.as_dict() for problem in blockers],
        )


def verify_serving(installation: Installation, connected: bool) -> None:
    """Raise OptictlError unless what was started first answers on its port.

    `connected`: LiteLLM was reached before, and has to be reached again.
    """
    started = any(change.action in ("start", "handover") for change in installation.changes)
    if not started:
        return
    config = installation.config
    if problem := trial.health_problem(config):
        raise NotReady(f"the service does not answer: {problem}")
    if connected:
        key = (files.read(installation.paths.proxy_key) or "").strip()
        answer = network.request("GET", f"{config.url}/models", key=key, timeout=30)
        if answer.status != 200:
            why = answer.error or answer.status
            raise OptictlError(f"the service does not reach LiteLLM, which the old one did: {why}")


def build_beside(
    shown: Installation,
    python: Path | None,
    wheelhouse: Path | None,
    progress: Progress,
    done: Done,
) -> None:
    """Build and prove the wanted release where it is not there yet. Nothing in force is touched.

    Raises:
        OptictlError: it could not be built, or did not prove itself.
    """
    with locked(shown.paths):
        _refuse(problem for problem in shown.blockers if problem.id in preflight.OF_A_BUILD)
        _, built, _ = store.standing(
            shown.want, shown.paths
        )  # another optictl may have built it meanwhile
        for change in shown.changes:
            if change.action == "build" and not built:
                build_release(shown, python, wheelhouse, progress)
                done(change)


def refuse_edited(changes: Sequence[Change], paths: Paths, force: bool) -> None:
    """Raise OptictlError unless nothing that somebody else wrote would be taken away, or that was asked for."""
    edited = [change.target for change in changes if change.edited]
    if edited and not force:
        raise LocalChanges(
            f"{', '.join(edited)}: not what optictl wrote",
            remedy=_words_of_edits(edited, paths),
        )


def _words_of_edits(edited: Sequence[str], paths: Paths) -> str:
    return (
        f"use --force to overwrite (a backup is kept); changes of your own belong in {paths.service_unit}.d/*.conf"
        if str(paths.service) in edited or len(edited) > 1
        else "use --force to overwrite (a backup is kept)"
    )


def build_release(
    installation: Installation, python: Path | None, wheelhouse: Path | None, progress: Progress
) -> None:
    """Build and prove the wanted release beside those that exist."""
    paths = installation.paths
    interpreter = interpreters.interpreter(paths, others_must_reach(paths), python, progress)
    files.make_directory(paths.releases)
    if files.file_facts(installation.want.directory(paths)).kind != "missing":
        progress(f"removing the half-built {installation.want.name}")
    build.build(installation.want, paths, installation.config, interpreter, wheelhouse, progress)


def with_texts(installation: Installation) -> Installation:
    """The same with the texts that are right now that the release is there."""
    texts = {
        a.path: a
        for a in _artefacts(installation.config, installation.paths, installation.want.name)
        if not a.keep
    }
    changes = [
        replace(c, artefact=texts[c.artefact.path])
        if c.artefact is not None and c.artefact.path in texts
        else c
        for c in installation.changes
    ]
    return replace(installation, changes=changes)


def apply(installation: Installation, progress: Progress, done: Done) -> None:
    """Apply every step but the build and the cleaning up, in order. To be called with the lock held."""
    paths, config = installation.paths, installation.config
    wrote = installed_files.read_manifest(paths)
    written = {
        c.target: c.artefact
        for c in installation.changes
        if c.artefact and c.action in ("create", "replace")
    }
    texts = {target: a.text for target, a in written.items() if not (a.keep or a.directory)}
    same = [
        a
        for a in _artefacts(config, paths, installation.want.name)
        if not (a.keep or a.directory) and str(a.path) not in texts
    ]
    wrote = wrote.intending(
        {**texts, **{str(a.path): a.text for a in same if not wrote.wrote(a.path, a.text)}}
    )
    file_changes.write_manifest(paths, wrote)
    bridged = any(c.action == "handover" for c in installation.changes)
    release = installation.want.directory(paths)
    unrecorded = _by_hand(installation)
    with ExitStack() as trials:
        port = 0
        for change in (c for c in installation.changes if not c.cleanup):
            if installation.hand_made is not None and change.target in unrecorded:
                previous_service.keep(installation.hand_made, paths, unrecorded)
                unrecorded = frozenset()
            if change.action == "build" or change.target == str(paths.manifest):
                pass  # it is there by now
            elif change.action == "trial":
                port = trials.enter_context(_trial(installation, progress))
                if not bridged:
                    trials.close()
            elif change.action == "switch":
                store.switch(paths, change.target)
            elif change.action == "sibling":
                host = replace(units.host(paths, installation.want.name), release=release)
                service.start_sibling(config, paths, render.unit(config, paths, host), progress)
            elif change.action == "aside":
                files.remove(Path(change.target))  # the record has it
            elif change.action == "handover":
                service.hand_over(config, paths, release, port, progress)
                trials.close()
                service.remove_sibling(config, paths)
            elif change.artefact is not None:
                file_changes.apply_file(_kept_in_record(change, installation))
            else:
                service.apply_change(change, config, paths, progress)
            done(change)
    file_changes.write_manifest(paths, installed_files.as_it_is(wrote))


@contextmanager
def _trial(installation: Installation, progress: Progress) -> Iterator[int]:
    """The release as its unit will start it, for as long as the block lasts; the port that it serves."""
    paths, want = installation.paths, installation.want
    host = replace(units.host(paths, want.name), release=want.directory(paths))
    going = {change.target for change in installation.changes if change.action == "aside"}
    running = units.running(installation.config, paths)
    staying = [path for path in _drop_ins(paths, running) if str(path) not in going]
    with sealed_trial.running(installation.config, paths, host, staying, progress) as port:
        yield port


def _by_hand(installation: Installation) -> frozenset[str]:
    """The files of the service that was written by hand, which a record keeps."""
    if installation.hand_made is None:
        return frozenset()
    aside = (change.target for change in installation.changes if change.action == "aside")
    return frozenset([str(installation.paths.service), *aside])


def _kept_in_record(change: Change, installation: Installation) -> Change:
    """A replacement whose old text needs no second copy beside it."""
    by_hand = installation.hand_made is not None and change.target == str(
        installation.paths.service
    )
    return replace(change, edited=False) if by_hand else change


def clean_up(installation: Installation, progress: Progress, done: Done) -> None:
    """Take away what nothing needs any more. What fails here is left for the next run: the deployment is whole."""
    steps = [change for change in installation.changes if change.cleanup]
    for change in steps:
        if change.action == "remove":
            file_changes.take_away(change)
            file_changes.remove_empty(
                Path(change.target).parents[:2], below=installation.paths.home
            )
        else:
            service.apply_change(change, installation.config, installation.paths, progress)
        done(change)
    wrote = installed_files.read_manifest(installation.paths)
    file_changes.write_manifest(
        installation.paths, wrote.without(c.target for c in steps if c.action == "remove")
    )
