"""init, install and uninstall: read facts, plan, apply, each step in an order that leaves what runs alone."""

from __future__ import annotations

import errno
import os
import secrets
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from optictl import loading, manifest, plan, preflight, proven, releases, render, smoke, supervise, trial
from optictl.config import Config, ConfigError
from optictl.errors import OptictlError, RolledBack, os_words
from optictl.guard import invariants, settings
from optictl.host import files, network, program
from optictl.host.systemd import Unit
from optictl.host.uv import ToolError
from optictl.manifest import Manifest
from optictl.paths import Paths
from optictl.plan import Artefact, Change, Found
from optictl.preflight import others_must_reach
from optictl.releases import Progress, Wanted
from optictl.results import Result
from optictl.takeover import proposal, reader, record, table
from optictl.takeover.handmade import HandMade
from optictl.takeover.proposal import NotTaken, Proposal, Setting
from optictl.takeover.record import KeptFile, Record

Done = Callable[[Change], None]


def new_proxy_key() -> str:
    """256 random bits. The word in front keeps it from ever beginning with sk-."""
    return f"optillm-{secrets.token_urlsafe(32)}"


def look(path: Path, read: bool = True) -> Found:
    """What stands at a path. `read`: with its text, which for a link is the target."""
    facts = files.facts(path)
    if facts.kind == "link":
        return Found(facts, files.read_link(path))
    return Found(facts, files.read(path) if read and facts.kind == "file" else None)


def _found(artefacts: Sequence[Artefact], wrote: Manifest) -> dict[Path, Found]:
    try:
        # the text of a secret is no fact that a plan needs
        found = {a.path: look(a.path, read=not a.keep) for a in artefacts}
        return {**{path: look(path) for path in map(Path, wrote.files)}, **found}
    except PermissionError as error:
        raise _denied(error) from None


def _denied(error: OSError) -> OptictlError:
    return OptictlError(
        f"no permission for {error.filename}",
        remedy="run it with sudo, or use --user or --root DIR for a deployment of your own",
    )


def read_manifest(paths: Paths) -> Manifest:
    """What optictl wrote so far."""
    try:
        return manifest.parse(files.read(paths.manifest))
    except PermissionError as error:
        raise _denied(error) from None


def write_manifest(paths: Paths, wrote: Manifest) -> None:
    if files.read(paths.manifest) != (text := wrote.dump()):
        files.write(paths.manifest, text, 0o644)


@dataclass(frozen=True)
class Initialized:
    """What `init` did, or with `--dry-run` would do: the files made and kept, and what it found of a hand-made service.

    `differences`: values of the unit that the kept optictl.yaml has otherwise. `not_taken`: all that the deployment does
    not get of it, the kept files counted. `others`: units of other names that run OptiLLM.
    """

    made: list[Change]
    kept: list[Path]
    service: HandMade | None = None
    proposal: Proposal | None = None
    differences: list[tuple[Setting, object]] = field(default_factory=list)
    not_taken: list[NotTaken] = field(default_factory=list)
    others: list[HandMade] = field(default_factory=list)


def init(paths: Paths, dry_run: bool = False) -> Initialized:
    """Make what the operator owns: configuration, env file, proxy key. Overwrites nothing.

    Where a hand-made service stands, the files are made with its values. `dry_run`: write nothing.

    Raises:
        OptictlError: a file of it, or of the service, may not be read or written; or systemd is too old.
    """
    preflight.refuse_old_systemd(paths)
    try:
        service = reader.read(paths)
        proposed = _proposed(service, paths)
        artefacts = _operators_files(proposed, service, paths)
        found = _found(artefacts, Manifest())
        missing = [a for a in artefacts if found[a.path].facts.kind == "missing"]
        outcome = _initialized(artefacts, missing, service, proposed, paths)
        for artefact in () if dry_run else missing:
            _put(artefact)
    except PermissionError as error:
        raise _denied(error) from None
    return outcome


def _proposed(service: HandMade | None, paths: Paths) -> Proposal | None:
    """What a hand-made service's values make of a deployment. LiteLLM is asked for its models where that costs nothing."""
    if service is None:
        return None
    if service.denied:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(service.denied[0]))
    url = service.base_url.rstrip("/")
    url = url if url.endswith("/v1") else f"{url}/v1"
    listed: list[str] = []
    if service.upstream_key and not invariants.upstream_problem(url):
        answer = network.request("GET", f"{url}/models", key=service.upstream_key, timeout=2)
        listed = sorted(smoke.listed_models(answer))
    return proposal.propose(service, paths, listed)


def _operators_files(proposed: Proposal | None, service: HandMade | None, paths: Paths) -> list[Artefact]:
    """The operator's files, with what was taken from a hand-made service."""
    config = proposed.config if proposed else Config()
    text = render.configuration(config)
    if proposed and service and proposed.settings:
        text = proposed.comment(service.path) + text
    key = (proposed.proxy_key if proposed else None) or new_proxy_key()
    upstream_key = proposed.upstream_key if proposed else None
    return [
        replace(a, text=proposal.with_upstream_key(a.text, upstream_key)) if a.path == paths.env else a
        for a in plan.operators_files(text, config, paths, key)
    ]


def _initialized(
    artefacts: Sequence[Artefact],
    missing: Sequence[Artefact],
    service: HandMade | None,
    proposed: Proposal | None,
    paths: Paths,
) -> Initialized:
    made = [Change("create", str(a.path), "it is missing", "", a) for a in missing]
    kept = [a.path for a in artefacts if a not in missing]
    others = reader.others(paths)
    if proposed is None:
        return Initialized(made, kept, others=others)
    differences: list[tuple[Setting, object]] = []
    if paths.config in kept:
        with suppress(ConfigError, OptictlError):  # what is wrong in it is for check to tell
            differences = proposed.differences(loading.load(paths.config))
    texts = [files.read(path) if path in kept else None for path in (paths.env, paths.proxy_key)]
    not_taken = [*proposed.not_taken, *proposal.about_kept(proposed, paths, *texts)]
    return Initialized(made, kept, service, proposed, differences, not_taken, others)


@dataclass(frozen=True)
class Installation:
    """A planned installation: the changes, and what is needed to apply them.

    `problems` are what preflight found; with a failed one among them it would fail. `hand_made` is the service that it
    replaces, `table` what that changes.
    """

    config: Config
    paths: Paths
    want: Wanted
    changes: list[Change]
    start: bool = True
    problems: list[Result] = field(default_factory=list)
    hand_made: HandMade | None = None
    table: list[table.Row] = field(default_factory=list)

    @property
    def blockers(self) -> list[Result]:
        """The problems with which nothing is begun."""
        return [problem for problem in self.problems if problem.red]


@dataclass(frozen=True)
class Circumstances:
    """What the caller of a plan says. `python` is the interpreter to build on; `secrets_come`: the caller writes the
    env file and the proxy key before it installs, so that the plan does not judge them."""

    python: Path | None = None
    secrets_come: bool = False


#: No interpreter was named, and the secrets are judged.
PLAIN = Circumstances()


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
    want, built, broken = (release, True, "") if release else releases.standing(releases.wanted(config, paths), paths)
    wrote = read_manifest(paths)
    artefacts = _artefacts(config, paths, want.name)
    current = releases.in_force(paths)
    known = _flags(paths, want.name)
    unit_first = current is not None and not render.flags_in(files.read(paths.service) or "") <= set(known)
    asked = plan.Release(want.name, built, current, broken, unit_first)
    running = supervise.running(config, paths) if start else None
    hand_made = None if paths.is_private else _hand_made(paths)
    taken_over = _taken_over(hand_made, config, paths, running)
    found = _found(artefacts, wrote)
    changes = plan.changes(artefacts, found, os.geteuid(), wrote, asked, paths, running, taken_over)
    if unnamed := [
        a for a in artefacts if not (a.keep or a.directory) and found[a.path].text == a.text and not wrote.wrote(a.path, a.text)
    ]:
        changes.append(Change("replace", str(paths.manifest), f"it does not name {len(unnamed)} files of this deployment"))
    changes += [
        Change("remove", str(p), "an interrupted optictl left it", cleanup=True)
        for p in _rubbish(paths, artefacts)
        if p.name != want.name
    ]
    changes += _stale_metrics(config, paths)
    if start:  # else an older release may still be running
        changes += _surplus(config, paths, want.name)
    if running is not None and trial.leftover(paths):
        target = f"{paths.trial_name}.service"
        changes.append(Change("stop", target, "an interrupted optictl left it", cleanup=True))
    problems = _preflight(config, paths, changes, running, hand_made, given) if changes else []
    rows = _table(hand_made, config, paths) if hand_made else []
    return Installation(config, paths, want, changes, start, problems, hand_made, rows)


def _hand_made(paths: Paths) -> HandMade | None:
    try:
        return reader.read(paths)
    except PermissionError as error:
        raise _denied(error) from None


def _taken_over(
    hand_made: HandMade | None, config: Config, paths: Paths, running: plan.Running | None
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
    running: plan.Running | None,
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


def _drop_ins(paths: Paths, running: plan.Running | None) -> list[Path]:
    """The drop-ins of the service's unit: those that systemd has read, and those that it will read."""
    read = running.found[paths.service_unit].drop_in_paths.split() if running else []
    places = (paths.units, Path("/etc/systemd") / paths.scope, Path("/run/systemd") / paths.scope)
    waiting = [p for place in places for p in sorted((place / f"{paths.service_unit}.d").glob("*.conf"))]
    return list(dict.fromkeys([*map(Path, read), *waiting]))


def _refuse_unfit_program(paths: Paths) -> None:
    """Raise OptictlError unless the timer's unit can run this optictl, and nobody but root can change what root then runs."""
    if problem := program.problem(as_root=paths.scope == "system"):
        raise OptictlError(
            f"monitoring.timer: the unit cannot run this optictl: {problem}",
            remedy="install it for the whole machine (UV_TOOL_DIR=/opt/uv-tools UV_TOOL_BIN_DIR=/usr/local/bin uv tool install "
            f"...) and run that one's {paths.command('install')}, or set monitoring.timer to false",
        )


def _metrics(paths: Paths) -> Path | None:
    """The file that the installed check's unit writes its metrics to, if it is there."""
    path = render.check_textfile(files.read(paths.check_service) or "")
    return path if path is not None and files.facts(path).kind == "file" else None


def _stale_metrics(config: Config, paths: Paths) -> list[Change]:
    """The removal of metrics that nobody writes any more: they would go on saying that all is well."""
    path, wanted = _metrics(paths), config.monitoring
    if path is None or (wanted.timer and wanted.textfile == str(path)):
        return []
    return [Change("remove", str(path), "nothing writes it any more", cleanup=True)]


def _refuse_foreign(config: Config, paths: Paths) -> None:
    """Raise OptictlError if somebody else could lead what is written here to another place."""
    uid, home = os.geteuid(), render.home(config, paths)
    for place in (paths.etc, paths.opt, paths.releases, paths.home, home, home / ".optillm"):
        facts = files.facts(place)
        if facts.kind == "missing":
            continue
        # the deployment's own three may lie elsewhere, where who deploys it has put a link
        if facts.kind == "link" and place not in (paths.etc, paths.opt, paths.home):
            raise OptictlError(f"{place} is a link, not a directory", remedy=f"rm {shlex.quote(str(place))}")
        owners = {facts.uid, files.facts(place.resolve()).uid} - {0, uid}
        if owners:
            raise OptictlError(
                f"{place} belongs to uid {owners.pop()}, not {uid}, who could change what is put there",
                remedy=f"chown -R {uid} {shlex.quote(str(place))}, when nothing strange is in it; or deploy as its owner",
            )


def _artefacts(config: Config, paths: Paths, release: str) -> list[Artefact]:
    operators = plan.operators_files(render.configuration(config), config, paths, new_proxy_key())
    host = supervise.host(paths, release)
    return operators + plan.rendered_files(config, paths, host) + plan.monitoring_files(config, paths, host)


def _flags(paths: Paths, release: str) -> list[str]:
    """The flags that a release's guard knows; one that is still to be built has this optictl's guard."""
    return list((proven.record(paths.releases / release) or {}).get("flags", settings.flags()))


def _rubbish(paths: Paths, artefacts: Sequence[Artefact]) -> list[Path]:
    """What a killed optictl may have left: half-built releases, texts that were not renamed, scratch files."""
    written = [*(a.path for a in artefacts), paths.manifest, paths.current, paths.previous]
    beside = [temporary for temporary in map(files.temporary, written) if files.facts(temporary).kind != "missing"]
    scratch = [paths.scratch] if files.facts(paths.scratch).kind != "missing" else []
    return [*releases.half_built(paths), *beside, *scratch]


def _surplus(config: Config, paths: Paths, wanted: str) -> list[Change]:
    """The removal of releases beyond `releases.keep`, as they will be when `wanted` is in force."""
    current = releases.in_force(paths)
    previous = releases.previous(paths) if current in (None, wanted) else current
    names = releases.complete(paths)
    surplus = releases.surplus([*(n for n in names if n != wanted), wanted], config.releases.keep, wanted, previous)
    return [
        Change("remove", str(paths.releases / name), f"releases.keep is {config.releases.keep}", cleanup=True)
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
    except files.Locked as holder:
        raise OptictlError(f"{holder} is working on this deployment", remedy="wait for it to end") from None
    except PermissionError as error:
        raise _denied(error) from None
    except OSError as error:
        raise OptictlError(
            _words(error),
            remedy=f"mend it and run {paths.command('install')} again; what was in force still is",
        ) from None


@contextmanager
def decided(shown: Installation, plan_again: Callable[[], Installation], force: bool) -> Iterator[Installation]:
    """Hold the lock and plan once more: the block gets what was shown, or what another optictl left of it to do.

    Raises:
        OptictlError: something else would be done than was shown, or a file was edited and `force` not given.
    """
    with locked(shown.paths):
        now = plan_again()
        _refuse_other(shown.changes, now.changes)
        refuse_blocked(now)
        refuse_edited(now.changes, now.paths, force)
        yield now


def _refuse_other(shown: Sequence[Change], now: Sequence[Change]) -> None:
    """Raise OptictlError if a plan holds what nobody was shown."""
    seen = {(c.action, c.target, c.diff, c.edited) for c in shown}
    if other := [f"{c.action} {c.target}" for c in now if (c.action, c.target, c.diff, c.edited) not in seen]:
        raise OptictlError(
            "this deployment changed while the plan was looked at",
            remedy="run the command again and look at the new plan",
            detail="not in the plan that was shown: " + ", ".join(other),
        )


def apply_install(
    shown: Installation, plan_again: Callable[[], Installation], python: Path | None, wheelhouse: Path | None,
    progress: Progress, done: Done, force: bool = False,
) -> None:  # fmt: skip
    """Apply a planned installation. A step that fails leaves what was in force in force.

    Raises:
        OptictlError: a step failed; what was done so far is whole, and a second run goes on. Or the machine
            is no longer what it was when the plan was made, or a file was edited and `force` not given.
    """
    with decided(shown, plan_again, force) as now:
        if any(c.action == "build" for c in now.changes):
            build(now, python, wheelhouse, progress)
            # a unit names the interpreter's directory, which is known only now
            now = with_texts(now)
        with going_back(now, progress):
            connected = was_connected(now.hand_made)
            apply(now, progress, done)
            verify_serving(now, connected)
        clean_up(now, progress, done)


def refuse_blocked(installation: Installation) -> None:
    """Raise OptictlError if preflight found what would make this installation fail."""
    _refuse(installation.blockers)


def _refuse(problems: Iterable[Result]) -> None:
    if blockers := list(problems):
        raise OptictlError(
            "; ".join(f"{problem.found}" for problem in blockers),
            remedy="; ".join(dict.fromkeys(problem.remedy for problem in blockers if problem.remedy)),
            problems=[problem.as_dict() for problem in blockers],
        )


def was_connected(hand_made: HandMade | None) -> bool:
    """Whether the service that was written by hand reaches LiteLLM now."""
    if hand_made is None or not hand_made.active or hand_made.port is None:
        return False
    url = f"http://127.0.0.1:{hand_made.port}/v1/models"
    return network.request("GET", url, key=hand_made.proxy_key, timeout=10).status == 200


def verify_serving(installation: Installation, connected: bool) -> None:
    """Raise OptictlError unless what was started first answers on its port.

    `connected`: LiteLLM was reached before, and has to be reached again.
    """
    started = any(change.action in ("start", "handover") for change in installation.changes)
    if not started:
        return
    config = installation.config
    answer = network.request("GET", f"http://{config.listen.host}:{config.listen.port}/health", timeout=10)
    if answer.status != 200 or trial.GUARD_HEADER not in answer.headers:
        raise OptictlError(f"the service does not answer: {answer.error or answer.status}")
    if connected:
        key = (files.read(installation.paths.proxy_key) or "").strip()
        answer = network.request("GET", f"{config.url}/models", key=key, timeout=30)
        if answer.status != 200:
            why = answer.error or answer.status
            raise OptictlError(f"the service does not reach LiteLLM, which the old one did: {why}")


def build_beside(shown: Installation, python: Path | None, wheelhouse: Path | None, progress: Progress, done: Done) -> None:
    """Build and prove the wanted release where it is not there yet. Nothing in force is touched.

    Raises:
        OptictlError: it could not be built, or did not prove itself.
    """
    with locked(shown.paths):
        _refuse(problem for problem in shown.blockers if problem.id in preflight.OF_A_BUILD)
        _, built, _ = releases.standing(shown.want, shown.paths)  # another optictl may have built it meanwhile
        for change in shown.changes:
            if change.action == "build" and not built:
                build(shown, python, wheelhouse, progress)
                done(change)


def refuse_edited(changes: Sequence[Change], paths: Paths, force: bool) -> None:
    """Raise OptictlError unless nothing that somebody else wrote would be taken away, or that was asked for."""
    edited = [change.target for change in changes if change.edited]
    if edited and not force:
        raise OptictlError(
            f"{', '.join(edited)}: not what optictl wrote",
            remedy=_words_of_edits(edited, paths),
        )


def _words_of_edits(edited: Sequence[str], paths: Paths) -> str:
    return (
        f"use --force to overwrite (a backup is kept); changes of your own belong in {paths.service_unit}.d/*.conf"
        if str(paths.service) in edited or len(edited) > 1
        else "use --force to overwrite (a backup is kept)"
    )


def build(installation: Installation, python: Path | None, wheelhouse: Path | None, progress: Progress) -> None:
    """Build and prove the wanted release beside those that exist."""
    paths = installation.paths
    interpreter = releases.interpreter(paths, others_must_reach(paths), python, progress)
    files.make_directory(paths.releases)
    if files.facts(installation.want.directory(paths)).kind != "missing":
        progress(f"removing the half-built {installation.want.name}")
    releases.build(installation.want, paths, installation.config, interpreter, wheelhouse, progress)


def with_texts(installation: Installation) -> Installation:
    """The same with the texts that are right now that the release is there."""
    texts = {a.path: a for a in _artefacts(installation.config, installation.paths, installation.want.name) if not a.keep}
    changes = [
        replace(c, artefact=texts[c.artefact.path]) if c.artefact is not None and c.artefact.path in texts else c
        for c in installation.changes
    ]
    return replace(installation, changes=changes)


def apply(installation: Installation, progress: Progress, done: Done) -> None:
    """Apply every step but the build and the cleaning up, in order. To be called with the lock held."""
    paths, config = installation.paths, installation.config
    wrote = read_manifest(paths)
    written = {c.target: c.artefact for c in installation.changes if c.artefact and c.action in ("create", "replace")}
    texts = {target: a.text for target, a in written.items() if not (a.keep or a.directory)}
    same = [
        a for a in _artefacts(config, paths, installation.want.name) if not (a.keep or a.directory) and str(a.path) not in texts
    ]
    wrote = wrote.intending({**texts, **{str(a.path): a.text for a in same if not wrote.wrote(a.path, a.text)}})
    bridged = any(c.action == "handover" for c in installation.changes)
    release = installation.want.directory(paths)
    unrecorded = _by_hand(installation)
    with ExitStack() as trials:
        port = 0
        for change in (c for c in installation.changes if not c.cleanup):
            if installation.hand_made is not None and change.target in unrecorded:
                keep_record(installation.hand_made, paths, unrecorded)
                unrecorded = frozenset()
            if change.action == "build" or change.target == str(paths.manifest):
                pass  # it is there by now
            elif change.action == "trial":
                port = trials.enter_context(_trial(installation, progress))
                if not bridged:
                    trials.close()
            elif change.action == "switch":
                releases.switch(paths, change.target)
            elif change.action == "sibling":
                host = replace(supervise.host(paths, installation.want.name), release=release)
                supervise.start_sibling(config, paths, render.unit(config, paths, host), progress)
            elif change.action == "aside":
                files.remove(Path(change.target))  # the record has it
            elif change.action == "handover":
                supervise.hand_over(config, paths, release, port, progress)
                trials.close()
                supervise.remove_sibling(config, paths)
            elif change.artefact is not None:
                _apply_file(_kept_in_record(change, installation))
            else:
                supervise.apply_change(change, config, paths, progress)
            done(change)
    write_manifest(paths, _as_it_is(wrote))


@contextmanager
def _trial(installation: Installation, progress: Progress) -> Iterator[int]:
    """The release as its unit will start it, for as long as the block lasts; the port that it serves."""
    paths, want = installation.paths, installation.want
    host = replace(supervise.host(paths, want.name), release=want.directory(paths))
    going = {change.target for change in installation.changes if change.action == "aside"}
    running = supervise.running(installation.config, paths)
    staying = [path for path in _drop_ins(paths, running) if str(path) not in going]
    with trial.running(installation.config, paths, host, staying, progress) as port:
        yield port


def _by_hand(installation: Installation) -> frozenset[str]:
    """The files of the service that was written by hand, which a record keeps."""
    if installation.hand_made is None:
        return frozenset()
    aside = (change.target for change in installation.changes if change.action == "aside")
    return frozenset([str(installation.paths.service), *aside])


def _kept_in_record(change: Change, installation: Installation) -> Change:
    """A replacement whose old text needs no second copy beside it."""
    by_hand = installation.hand_made is not None and change.target == str(installation.paths.service)
    return replace(change, edited=False) if by_hand else change


def keep_record(hand_made: HandMade, paths: Paths, targets: Iterable[str]) -> None:
    """Copy the unit that was written by hand and its drop-ins to `before/`, readable by root alone, with its state."""
    originals = [path for path in map(Path, sorted(targets)) if files.facts(path).kind == "file"]
    files.remove(paths.before)
    files.make_directory(paths.before, 0o700)
    kept = []
    for number, path in enumerate(originals):
        facts, name = files.facts(path), record.kept_name(number, path)
        files.write(paths.before / name, files.read(path) or "", 0o600)
        kept.append(KeptFile(str(path), facts.mode, facts.uid, facts.gid, name))
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    state = Record(hand_made.unit, hand_made.enabled, hand_made.active, now, tuple(kept))
    files.write(paths.before / record.STATE, state.dump(), 0o600)


def read_record(paths: Paths) -> Record | None:
    """What was there before this deployment, or None."""
    return record.parse(files.read(paths.before / record.STATE))


def kept_service(paths: Paths) -> Record | None:
    """The same, for a message: None also where the caller may not know."""
    with suppress(PermissionError):
        return read_record(paths)
    return None


def put_record_back(paths: Paths, state: Record) -> None:
    """Write the files of a service that was there before, with their modes and owners."""
    for kept in state.files:
        path = Path(kept.path)
        files.make_directory(path.parent)
        files.write(path, files.read(paths.before / kept.name) or "", kept.mode)
        files.set_owners(path, kept.uid, kept.gid)


def _as_it_is(wrote: Manifest) -> Manifest:
    """The manifest with only that text of each file which stands there, if it is one of optictl's."""
    found = {path: look(Path(path)).text for path in wrote.files}
    return Manifest(
        {path: (manifest.digest(str(found[path])),) if wrote.wrote(path, found[path]) else d for path, d in wrote.files.items()}
    )


def clean_up(installation: Installation, progress: Progress, done: Done) -> None:
    """Take away what nothing needs any more. What fails here is left for the next run: the deployment is whole."""
    steps = [change for change in installation.changes if change.cleanup]
    for change in steps:
        if change.action == "remove":
            take_away(change)
            _remove_empty(Path(change.target).parents[:2], below=installation.paths.home)
        else:
            supervise.apply_change(change, installation.config, installation.paths, progress)
        done(change)
    wrote = read_manifest(installation.paths)
    write_manifest(installation.paths, wrote.without(c.target for c in steps if c.action == "remove"))


def _remove_empty(directories: Sequence[Path], below: Path) -> None:
    """Remove what is left of a HOME whose provider file is gone."""
    for directory in directories:
        if directory.is_relative_to(below) and directory != below and directory.is_dir() and not any(directory.iterdir()):
            files.remove(directory)


def _apply_file(change: Change) -> None:
    artefact = change.artefact
    assert artefact is not None
    if change.action in ("mode", "owner"):
        if change.action == "owner":
            files.set_owner(artefact.path)
        files.set_mode(artefact.path, artefact.mode)
        return
    kind = files.facts(artefact.path).kind
    if kind == "directory" and not artefact.directory:
        raise OptictlError(f"a directory stands at {artefact.path}", remedy=f"move {artefact.path} away")
    if change.edited and kind != "missing":
        files.keep_aside(artefact.path, time.strftime("kept-%Y%m%dT%H%M%SZ", time.gmtime()))
        if artefact.directory:
            files.remove(artefact.path)
    _put(artefact)


def _put(artefact: Artefact) -> None:
    files.make_directory(artefact.path if artefact.directory else artefact.path.parent)
    if artefact.link:
        files.point(artefact.path, Path(artefact.text))
    elif not artefact.directory:
        files.write(artefact.path, artefact.text, artefact.mode)


def take_away(change: Change) -> None:
    """Remove a file that is optictl's own, or a release; an edited file is kept under another name."""
    path = Path(change.target)
    if change.edited and files.facts(path).kind != "missing":
        files.keep_aside(path, time.strftime("kept-%Y%m%dT%H%M%SZ", time.gmtime()))
    if files.facts(path).kind == "directory":
        releases.remove(path)
    else:
        files.remove(path)


@dataclass(frozen=True)
class _Before:
    """What was active: the release, the text of each file that a start of the service reads (None: it was missing) and
    its mode, whether the service ran, and how systemd knew each unit."""

    release: str | None
    texts: Mapping[Path, str | None]
    modes: Mapping[Path, int]
    runs: bool
    units: Mapping[str, Unit]


def _state_before(installation: Installation) -> _Before:
    paths = installation.paths
    rendered = [
        c.artefact.path
        for c in installation.changes
        if c.artefact is not None and not c.artefact.keep and not c.artefact.directory
    ]
    aside = [Path(change.target) for change in installation.changes if change.action == "aside"]
    running = supervise.running(installation.config, paths) if installation.start else None
    return _Before(
        releases.in_force(paths),
        {path: look(path).text for path in (*rendered, *aside)},
        {path: files.facts(path).mode for path in (*rendered, *aside)},
        running is not None and running.runs,
        running.found if running is not None else {},
    )


@contextmanager
def going_back(installation: Installation, progress: Progress) -> Iterator[None]:
    """If the block fails after something active was touched, put what was active back, and serve it.

    Raises:
        RolledBack: it did; the reason for it is told.
    """
    paths = installation.paths
    before = _state_before(installation)
    try:
        yield
    except (OptictlError, OSError, KeyboardInterrupt) as failure:
        touched = (
            releases.in_force(paths) != before.release
            or any(look(path).text != text for path, text in before.texts.items())
            or _units_differ(before, paths)
        )
        if not touched or (before.release is None and not before.units):
            raise  # without systemd a second run of a first installation goes on
        why = failure if isinstance(failure, OptictlError) else OptictlError(_words(failure))
        detail = why.detail or _last_words(paths, bool(before.units))
        if before.release is not None and installation.hand_made is None:
            progress(f"rolling back to {before.release}: {why.what}")
            _put_back(before, installation, progress)
            now = f"rolled back to {before.release}"
        else:
            progress(f"rolling back: {why.what}")
            now = _undo(before, installation, progress)
        remedy = why.remedy or paths.command("logs --errors")
        raise RolledBack(f"{why.what}; {now}", remedy=remedy, detail=detail) from None


#: Seconds in which a service that is put back has to listen again: OptiLLM takes 2 to 11 s to start.
_LISTENS_AGAIN = 60


def _undo(before: _Before, installation: Installation, progress: Progress) -> str:
    """Take a first installation back: nothing of it runs or starts at boot, and what was there runs again.

    Returns what is there now, in words.
    """
    paths, hand_made = installation.paths, installation.hand_made
    systemd = supervise.manager(paths)
    with suppress(OptictlError, ToolError):
        supervise.remove_everything(installation.config, paths)
    state = read_record(paths) if hand_made is not None else None
    recorded = {kept.path for kept in state.files} if state else set()
    for path, text in before.texts.items():
        if text is None:
            files.remove(path)
        elif str(path) not in recorded:
            files.write(path, text, before.modes[path])
    if state is not None:
        put_record_back(paths, state)
        files.remove(paths.before)
    files.remove(paths.current)
    write_manifest(paths, _as_it_is(read_manifest(paths)).without(map(str, before.texts)))
    systemd.reload()
    systemd.reset_failed(paths.service_unit)
    old = before.units[paths.service_unit]
    if not old.loaded:
        return "nothing of it was left running or enabled"
    port = hand_made.port if hand_made is not None else None
    return _serve_again(paths, old.unit_file_state, old.active, port, progress)


def _units_differ(before: _Before, paths: Paths) -> bool:
    """Whether the service or its socket was started or enabled where neither ran before."""
    now = supervise.facts(paths) if before.units and not before.runs else None
    if now is None:
        return False
    return any(
        now[name].active_state != before.units[name].active_state
        or now[name].unit_file_state != before.units[name].unit_file_state
        for name in (paths.service_unit, paths.socket_unit)
    )


def _serve_again(paths: Paths, enabled: str, active: bool, port: int | None, progress: Progress) -> str:
    """Enable and start a unit that was put back, as it was before; what came of it, in words.

    `enabled` is systemd's word for how it started at boot, `port` what it listens on, None where nobody knows.
    """
    systemd, unit = supervise.manager(paths), paths.service_unit
    if enabled in record.ENABLED:
        systemd.enable(unit, runtime=enabled.endswith("-runtime"))
    if not active:
        return f"{unit} is back as it was"
    progress(f"starting {unit} again")
    systemd.start(unit)
    until = time.monotonic() + _LISTENS_AGAIN
    while port is not None and not network.listens(port):
        if time.monotonic() > until:
            return f"{unit} is back and started, but does not listen on port {port} after {_LISTENS_AGAIN} s"
        time.sleep(0.1)
    return f"{unit} is back as it was and serves again"


def _words(failure: BaseException) -> str:
    return os_words(failure) if isinstance(failure, OSError) else "interrupted"


def _last_words(paths: Paths, under_systemd: bool) -> str:
    """The end of the journal, where there is one."""
    if not under_systemd:
        return ""
    entries = supervise.manager(paths).journal(paths.service_unit, "--lines=8")
    return "\n".join(str(entry.get("MESSAGE", "")) for entry in entries)


def _put_back(before: _Before, installation: Installation, progress: Progress) -> None:
    paths = installation.paths
    artefacts = {c.artefact.path: c.artefact for c in installation.changes if c.artefact is not None}

    def put_units() -> None:
        for path, text in before.texts.items():
            if text is None:
                files.remove(path)
            elif look(path).text != text:
                _put(replace(artefacts[path], text=text))

    if before.texts.get(paths.check_timer, "") is None:
        supervise.remove_timer(paths)
    assert before.release is not None
    known = set(_flags(paths, before.release))
    steps: list[Callable[[], object]] = [put_units, lambda: releases.switch(paths, str(before.release))]
    if render.flags_in(files.read(paths.service) or "") <= known:
        steps.reverse()
    for step in steps:
        step()
    wrote = read_manifest(paths)
    restored = {str(path): text for path, text in before.texts.items() if text is not None and str(path) in wrote.files}
    write_manifest(paths, _as_it_is(wrote.intending(restored)))
    if before.units and not before.runs:
        _stop_again(before, installation)
    if before.runs:
        systemd = supervise.manager(paths)
        systemd.reload()
        service = systemd.show(paths.service_unit)
        fitting = files.identity(paths.releases / before.release / "work")
        if not service.active or supervise.directory_of(service.main_pid) != fitting:
            systemd.reset_failed(paths.service_unit)
            supervise.restart(installation.config, paths, progress)
        elif paths.scope == "system":
            supervise.remove_sibling(installation.config, paths)


def _stop_again(before: _Before, installation: Installation) -> None:
    """Stop and disable what did not run, or did not start at boot, before: a start that fails must not go on for ever."""
    paths = installation.paths
    systemd, now = supervise.manager(paths), supervise.facts(paths) or {}
    systemd.reload()
    stopped = [name for name, unit in now.items() if unit.active and not before.units[name].active]
    if stopped:
        systemd.stop(*stopped, seconds=installation.config.timeouts.drain + render.STOP_GRACE)
    disabled = [
        name
        for name, unit in now.items()
        if unit.unit_file_state == "enabled" and before.units[name].unit_file_state != "enabled"
    ]
    if disabled:
        systemd.disable(*disabled)
    systemd.reset_failed(*now)


def plan_removal(paths: Paths, purge: bool, restore: bool = False) -> list[Change]:
    """What `uninstall` would do: what the manifest names and the releases go, the operator's own only with `purge`.

    `restore`: the service that was there before optictl's comes back.
    """
    return [*_plan_removal(paths, purge), *(_plan_restoration(paths) if restore else ())]


def _plan_restoration(paths: Paths) -> list[Change]:
    """The return of a service that was written by hand.

    Raises:
        OptictlError: no record of one is kept.
    """
    state = read_record(paths)
    if state is None:
        raise OptictlError(f"{paths.before} holds no service that was there before", remedy=paths.command("uninstall"))
    runs = "started" if state.active else "left stopped, as it was"
    reason = f"it was there until {state.since}; {state.enabled or 'not enabled'}, and {runs}"
    return [Change("restore", state.unit, reason)]


def _plan_removal(paths: Paths, purge: bool) -> list[Change]:
    wrote = read_manifest(paths)
    found = _found([], wrote)
    names = [path for path in map(Path, wrote.files) if found[path].facts.kind != "missing"]
    wrote = Manifest({path: digests for path, digests in wrote.files.items() if Path(path) in names})
    releases_there = sorted(paths.releases.iterdir()) if paths.releases.is_dir() else []
    own = [paths.current, paths.previous, paths.root_directory, *releases_there, *_rubbish(paths, [])]
    operators = [paths.proxy_key, paths.env, paths.config, paths.locks] if purge else []
    metrics = [path for path in (_metrics(paths),) if path is not None]
    everything = dict.fromkeys([*own, *metrics, *operators, paths.manifest])
    places = [path for path in everything if files.facts(path).kind != "missing"]
    directories = [p for p in _emptied(paths, purge, [*names, *places]) if files.facts(p).kind == "directory"]
    units = supervise.facts(paths)
    supervised = units is not None and units[paths.service_unit].loaded and bool(names)
    if not names and not places and not directories:
        return []
    return plan.removal(paths, wrote, found, [*places, *directories], supervised=supervised)


def _emptied(paths: Paths, purge: bool, removed: Sequence[Path]) -> list[Path]:
    """Directories of optictl's own that hold nothing but what is removed, innermost first."""
    homes = [p.parent for p in removed if p.name == "proxy_config.yaml"]
    candidates = [*homes, *(p.parent for p in homes), paths.releases, paths.home, paths.opt, *([paths.etc] if purge else [])]
    gone = {*removed, paths.opt / ".lock"}
    emptied = []
    for directory in candidates:
        if directory.is_dir() and directory not in gone and set(directory.iterdir()) <= gone:
            emptied.append(directory)
            gone.add(directory)
    return emptied


def apply_removal(
    shown: Sequence[Change],
    config: Config,
    paths: Paths,
    purge: bool,
    progress: Progress,
    done: Done,
    force: bool = False,
    restore: bool = False,
) -> None:
    """Apply a planned removal.

    Raises:
        OptictlError: a step failed; a second run goes on. Or the machine is no longer what it was when the plan
            was made, or a file was edited and `force` not given.
    """
    # without paths.opt there is no release, and nobody who installs holds its lock
    with locked(paths) if paths.opt.is_dir() else nullcontext():
        changes = plan_removal(paths, purge, restore)
        _refuse_other(shown, changes)
        refuse_edited(changes, paths, force)
        for change in changes:
            if change.action == "remove":
                take_away(change)
            elif change.action == "restore":
                _restore(paths, progress)
            else:
                supervise.apply_change(change, config, paths, progress)
            done(change)
        files.remove(paths.opt / ".lock")


def _restore(paths: Paths, progress: Progress) -> None:
    """Put the service that was there before optictl's back, as it was."""
    if (state := read_record(paths)) is None:
        return
    put_record_back(paths, state)
    if supervise.facts(paths) is not None:
        supervise.manager(paths).reload()
        progress(_serve_again(paths, state.enabled, state.active, None, progress))
    files.remove(paths.before)
    for directory in (paths.etc,):
        if directory.is_dir() and not any(directory.iterdir()):
            files.remove(directory)
