"""Steps that build, prove and activate a release."""

from __future__ import annotations

from dataclasses import dataclass

from optictl.errors import NotReady
from optictl.host import files, processes
from optictl.operations.context import Context
from optictl.operations.preflight import others_must_reach
from optictl.operations.steps.base import Step
from optictl.proof import trial
from optictl.releases import build, interpreters, store
from optictl.releases.locks import ReleaseSpec


@dataclass(frozen=True)
class ReleaseStep(Step):
    """A step about one release."""

    release: ReleaseSpec

    @property
    def target(self) -> str:
        return self.release.name


class ProofStep(ReleaseStep):
    """A step that leaves everything active alone: it builds or proves a release."""


@dataclass(frozen=True)
class BuildRelease(ProofStep):
    """Build a release next to those that exist, and prove that it starts."""

    action = "build"
    done = "built and proven"
    effect = "add"

    def apply(self, context: Context) -> None:
        paths, say = context.paths, context.say
        interpreter = interpreters.interpreter(paths, others_must_reach(paths), context.python, say)
        files.make_directory(paths.releases)
        if files.file_facts(self.release.directory(paths)).kind != "missing":
            say(f"removing the half-built {self.release.name}")
        build.build(self.release, paths, context.config, interpreter, context.wheelhouse, say)


@dataclass(frozen=True)
class TryPromises(ProofStep):
    """Try the promises of the guard on a release that is there already, against the stand-in."""

    action = "conform"
    done = "keeps the promises of the guard:"

    def apply(self, context: Context) -> None:
        context.say(f"starting {self.release.name} against the stand-in")
        directory, scratch = self.release.directory(context.paths), context.paths.scratch
        build.conform_again(directory, context.config, context.say, scratch)


@dataclass(frozen=True)
class ProveCanary(ProofStep):
    """Ask every enabled strategy of the release, on a free port and through the live upstream."""

    action = "canary"
    done = "proven against the live upstream:"

    def apply(self, context: Context) -> None:
        assert context.canary is not None, "only upgrade and rollback plan a canary"
        context.canary.prove(context.config, context.paths, self.release.name, context.say)


@dataclass(frozen=True)
class SwitchRelease(ReleaseStep):
    """Activate a release, in one step."""

    action = "switch"
    done = "activated"

    def apply(self, context: Context) -> None:
        store.switch(context.paths, self.release.name)

    def undo(self, context: Context) -> None:
        before = context.before
        if before is not None:
            store.restore(context.paths, before.release, before.previous_release)
        else:
            files.remove(context.paths.current)


@dataclass(frozen=True)
class ConfirmRelease(ReleaseStep):
    """Prove the active release, which an interrupted run activated and did not prove."""

    action = "confirm"
    done = "proven:"

    def apply(self, context: Context) -> None:
        """The caller's proof follows; here, whether it answers where it serves."""
        port = context.config.listen.port
        serves = any(listener.port == port for listener in processes.listeners())
        if serves and (problem := trial.health_problem(context.config)):
            raise NotReady(f"the service does not answer: {problem}")
