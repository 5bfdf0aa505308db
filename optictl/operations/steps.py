"""The steps of a plan: one small class for each kind, which shows itself, applies itself and can be
undone.

A plan is a list of steps. `describe` is what the plan shows, in a table or as JSON; `action` and
`done` are the words for it; no code compares them. `apply` does the step. `undo` returns what the
step changed to the state before the run; it may be called for a step that failed or was not
reached. Only files and the active release are undone step by step: `operations/transaction.py`
brings the units back afterwards, once the files are in place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from optictl.deployment.artefacts import Artefact
from optictl.facts import installed_files, units
from optictl.host import files
from optictl.host.systemd import Systemd
from optictl.operations import file_changes, previous_service, sealed_trial, service
from optictl.operations.context import Context
from optictl.operations.preflight import others_must_reach
from optictl.releases import build, interpreters, store
from optictl.releases.locks import ReleaseSpec

#: What a step does to its target; the plan's colours follow it.
Effect = Literal["add", "change", "remove", "run"]


@dataclass(frozen=True)
class Description:
    """A step as a plan shows it: what is done to which target, why, and the difference that it
    makes.

    `edited`: the target holds a text that optictl did not write.
    """

    action: str
    target: str
    reason: str
    diff: str = ""
    edited: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The JSON shape; `edited` only where it is true."""
        fields = asdict(self)
        if not self.edited:
            del fields["edited"]
        return fields


@dataclass(frozen=True, kw_only=True)
class Step(ABC):
    """One step of a plan.

    `action` is its word in a plan, `done` its word once it is done. `edited`: it replaces or
    removes a text that optictl did not write, which needs --force. `cleanup`: it removes what is no
    longer needed; it comes after every check.
    """

    action: ClassVar[str]
    done: ClassVar[str]
    effect: ClassVar[Effect] = "run"

    reason: str
    diff: str = ""
    edited: bool = False
    cleanup: bool = False

    @property
    @abstractmethod
    def target(self) -> str:
        """What the step is about: a path, a unit, a release."""

    def describe(self) -> Description:
        """What the plan shows."""
        return Description(self.action, self.target, self.reason, self.diff, self.edited)

    def as_dict(self) -> dict[str, Any]:
        """The JSON shape."""
        return self.describe().as_dict()

    @abstractmethod
    def apply(self, context: Context) -> None:
        """Do it.

        Raises:
            OptictlError: it failed.
        """

    def undo(self, context: Context) -> None:  # noqa: B027  most steps need none
        """Return what the step changed to `context.before`. A step without an `undo` changes
        nothing that needs one.
        """


# -- releases


class ProofStep(Step):
    """A step that leaves everything active alone: it builds or proves a release."""


@dataclass(frozen=True)
class BuildRelease(ProofStep):
    """Build a release next to those that exist, and prove that it starts."""

    action = "build"
    done = "built and proven"
    effect = "add"

    release: ReleaseSpec

    @property
    def target(self) -> str:
        return self.release.name

    def apply(self, context: Context) -> None:
        paths, say = context.paths, context.say
        interpreter = interpreters.interpreter(paths, others_must_reach(paths), context.python, say)
        files.make_directory(paths.releases)
        if files.file_facts(self.release.directory(paths)).kind != "missing":
            say(f"removing the half-built {self.release.name}")
        build.build(self.release, paths, context.config, interpreter, context.wheelhouse, say)


@dataclass(frozen=True)
class ProveCanary(ProofStep):
    """Ask every enabled strategy of the release, on a free port and through the live upstream."""

    action = "canary"
    done = "proven against the live upstream:"

    release: ReleaseSpec

    @property
    def target(self) -> str:
        return self.release.name

    def apply(self, context: Context) -> None:
        assert context.canary is not None, "only upgrade and rollback plan a canary"
        context.canary.prove(context.config, context.paths, self.release.name, context.say)


@dataclass(frozen=True)
class SwitchRelease(Step):
    """Activate a release, in one step."""

    action = "switch"
    done = "activated"

    release: ReleaseSpec

    @property
    def target(self) -> str:
        return self.release.name

    def apply(self, context: Context) -> None:
        store.switch(context.paths, self.release.name)

    def undo(self, context: Context) -> None:
        before = context.before
        if before is not None:
            store.restore(context.paths, before.release, before.previous_release)
        else:
            files.remove(context.paths.current)


# -- files


@dataclass(frozen=True)
class FileStep(Step):
    """A step about one file of the deployment."""

    artefact: Artefact

    @property
    def target(self) -> str:
        return str(self.artefact.path)

    def undo(self, context: Context) -> None:
        """Put the text back that was there. Directories and the operator's own files are not in
        the state before.
        """
        path = self.artefact.path
        if context.before is None or path not in context.before.texts:
            return
        text = context.before.texts[path]
        if text is None:
            files.remove(path)
        elif installed_files.read(path).text != text:
            mode = context.before.modes[path]
            file_changes.put(replace(self.artefact, text=text, mode=mode))


@dataclass(frozen=True)
class _WriteStep(FileStep):
    """`of_hand_made`: it takes the place of a unit that was written by hand, which is kept in
    its record.
    """

    of_hand_made: bool = False

    def apply(self, context: Context) -> None:
        if self.of_hand_made:
            context.keep_hand_made_service()
        file_changes.write(self.artefact, keep_old=self.edited and not self.of_hand_made)


@dataclass(frozen=True)
class CreateFile(_WriteStep):
    """Write a file, directory or link that is missing."""

    action = "create"
    done = "created"
    effect = "add"


@dataclass(frozen=True)
class ReplaceFile(_WriteStep):
    """Write a file, directory or link in the place of what is there; an edited one is kept under
    another name.
    """

    action = "replace"
    done = "replaced"
    effect = "change"


@dataclass(frozen=True)
class EditConfiguration(FileStep):
    """Write the new version into the operator's configuration. optictl does not own that file
    afterwards.
    """

    action = "configure"
    done = "edited"

    def apply(self, context: Context) -> None:
        file_changes.write(self.artefact, keep_old=False)


@dataclass(frozen=True)
class SetMode(FileStep):
    """Give a file its mode."""

    action = "mode"
    done = "mode set on"
    effect = "change"

    def apply(self, context: Context) -> None:
        files.set_mode(self.artefact.path, self.artefact.mode)


@dataclass(frozen=True)
class SetOwner(FileStep):
    """Give a file its owner, and the mode that it may have."""

    action = "owner"
    done = "owner set on"
    effect = "change"

    def apply(self, context: Context) -> None:
        files.set_owner(self.artefact.path)
        files.set_mode(self.artefact.path, self.artefact.mode)


@dataclass(frozen=True)
class RecordFiles(Step):
    """Name files in the manifest that are right already. An installation writes it before its first
    and after its last step, so that nothing is left to apply here.
    """

    action = "replace"
    done = "replaced"
    effect = "change"

    manifest: Path

    @property
    def target(self) -> str:
        return str(self.manifest)

    def apply(self, context: Context) -> None:
        """Done by the installation itself."""


@dataclass(frozen=True)
class PathStep(Step):
    """A step about one path that is no artefact of the deployment."""

    path: Path

    @property
    def target(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class MoveAside(PathStep):
    """Remove a drop-in of the unit that was written by hand; the record of that service keeps
    it.
    """

    action = "aside"
    done = "moved aside"

    def apply(self, context: Context) -> None:
        context.keep_hand_made_service()
        files.remove(self.path)


@dataclass(frozen=True)
class Remove(PathStep):
    """Remove a file, a link, a directory or a release; an edited file is kept under another
    name.
    """

    action = "remove"
    done = "removed"
    effect = "remove"

    def apply(self, context: Context) -> None:
        file_changes.take_away(self.path, keep_old=self.edited)


# -- units


class SystemdStep(Step):
    """A step that systemd does. Where it fails, the error says why."""

    def apply(self, context: Context) -> None:
        with service.explained(context.config, context.paths):
            self.run(context, units.manager(context.paths))

    @abstractmethod
    def run(self, context: Context, systemd: Systemd) -> None:
        """Have systemd do it."""


@dataclass(frozen=True)
class ReloadSystemd(SystemdStep):
    """Have systemd read its unit files again."""

    action = "reload"
    done = "reloaded"

    @property
    def target(self) -> str:
        return "systemd"

    def run(self, context: Context, systemd: Systemd) -> None:
        systemd.reload()


@dataclass(frozen=True)
class EnableUnits(SystemdStep):
    """Have units start at boot."""

    action = "enable"
    done = "enabled"

    units: tuple[str, ...]

    @property
    def target(self) -> str:
        return " ".join(self.units)

    def run(self, context: Context, systemd: Systemd) -> None:
        systemd.enable(*self.units)


@dataclass(frozen=True)
class UnitStep(SystemdStep):
    """A step about one unit."""

    unit: str

    @property
    def target(self) -> str:
        return self.unit


@dataclass(frozen=True)
class StartService(UnitStep):
    """Start the sockets and the service; it is done when the proxy answers."""

    action = "start"
    done = "started"

    def run(self, context: Context, systemd: Systemd) -> None:
        systemd.reset_failed(self.unit)
        service.start(context.config, context.paths)


@dataclass(frozen=True)
class StartUnit(UnitStep):
    """Start a unit other than the service."""

    action = "start"
    done = "started"

    def run(self, context: Context, systemd: Systemd) -> None:
        systemd.start(self.unit)


@dataclass(frozen=True)
class StartSibling(UnitStep):
    """Start a second process of the release on the same socket, which serves while the service
    drains.
    """

    action = "sibling"
    done = "ready:"

    release: ReleaseSpec

    def run(self, context: Context, systemd: Systemd) -> None:
        host = replace(context.host, release=self.release.directory(context.paths))
        service.start_sibling(context.config, context.paths, host, context.say)


@dataclass(frozen=True)
class RunTrial(UnitStep):
    """Start the release once in its sandbox, with the deployment's own key and env file.

    `serves_on`: it serves until the step that hands over to the new process.
    """

    action = "trial"
    done = "started once in its sandbox:"

    release: ReleaseSpec
    serves_on: bool = False

    def run(self, context: Context, systemd: Systemd) -> None:
        host = replace(context.host, release=self.release.directory(context.paths))
        trial = sealed_trial.running(
            context.config, context.paths, host, context.drop_ins, context.say
        )
        context.trial_port = context.trials.enter_context(trial)
        if not self.serves_on:
            context.trials.close()


@dataclass(frozen=True)
class HandOver(UnitStep):
    """Replace a process that holds the port itself; the trial serves until the new process is
    ready.
    """

    action = "handover"
    done = "handed over to the new process of"

    release: ReleaseSpec

    def run(self, context: Context, systemd: Systemd) -> None:
        directory = self.release.directory(context.paths)
        service.hand_over(context.config, context.paths, directory, context.trial_port, context.say)
        context.trials.close()
        service.remove_sibling(context.config, context.paths)


@dataclass(frozen=True)
class DrainAndRestart(UnitStep):
    """Restart the service: its requests in flight finish first. A sibling that served meanwhile
    is stopped.
    """

    action = "restart"
    done = "restarted"

    def run(self, context: Context, systemd: Systemd) -> None:
        service.replace_service(context.config, context.paths, context.say)


@dataclass(frozen=True)
class RestartSocket(UnitStep):
    """Restart the socket, and with it the service: the address changed."""

    action = "restart"
    done = "restarted"

    def run(self, context: Context, systemd: Systemd) -> None:
        seconds = service.stop_seconds(context.config)
        systemd.restart(self.unit, context.paths.service_unit, seconds=seconds)


@dataclass(frozen=True)
class RestartUnit(UnitStep):
    """Restart a unit other than the service and its socket."""

    action = "restart"
    done = "restarted"

    def run(self, context: Context, systemd: Systemd) -> None:
        systemd.restart(self.unit)


@dataclass(frozen=True)
class StopUnit(UnitStep):
    """Stop a unit; requests in flight finish first."""

    action = "stop"
    done = "stopped"
    effect = "remove"

    def run(self, context: Context, systemd: Systemd) -> None:
        systemd.stop(self.unit, seconds=service.stop_seconds(context.config))


@dataclass(frozen=True)
class StopSibling(UnitStep):
    """Stop a sibling that an earlier restart left behind, and remove its unit."""

    action = "stop"
    done = "stopped"
    effect = "remove"

    def run(self, context: Context, systemd: Systemd) -> None:
        service.remove_sibling(context.config, context.paths)


@dataclass(frozen=True)
class StopTrial(UnitStep):
    """Stop a trial that an interrupted optictl left behind, and remove its units."""

    action = "stop"
    done = "stopped"
    effect = "remove"

    def run(self, context: Context, systemd: Systemd) -> None:
        sealed_trial.remove_leftover(context.config, context.paths)


@dataclass(frozen=True)
class StopCheck(UnitStep):
    """Stop the timer of the check and a check that it began."""

    action = "stop"
    done = "stopped"
    effect = "remove"

    def run(self, context: Context, systemd: Systemd) -> None:
        service.stop_timer(context.paths)


@dataclass(frozen=True)
class DisableUnit(UnitStep):
    """Keep a unit from starting at boot."""

    action = "disable"
    done = "disabled"
    effect = "remove"

    def run(self, context: Context, systemd: Systemd) -> None:
        systemd.disable(self.unit)


@dataclass(frozen=True)
class DeploymentStep(SystemdStep):
    """A step about all units of one deployment."""

    name: str

    @property
    def target(self) -> str:
        return self.name


@dataclass(frozen=True)
class StopDeployment(DeploymentStep):
    """Stop every unit of a deployment that is to be removed."""

    action = "stop"
    done = "stopped"
    effect = "remove"

    def run(self, context: Context, systemd: Systemd) -> None:
        service.stop_deployment(context.config, context.paths)


@dataclass(frozen=True)
class DisableDeployment(DeploymentStep):
    """Keep every unit of a deployment from starting at boot."""

    action = "disable"
    done = "disabled"
    effect = "remove"

    def run(self, context: Context, systemd: Systemd) -> None:
        service.disable_deployment(context.config, context.paths)


@dataclass(frozen=True)
class RestoreService(Step):
    """Return the service that was there before optictl's, as it was."""

    action = "restore"
    done = "restored"

    unit: str

    @property
    def target(self) -> str:
        return self.unit

    def apply(self, context: Context) -> None:
        previous_service.restore(context.paths, context.say)
