"""Steps that systemd does: start, restart and stop units."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

from optictl.facts import units
from optictl.host.systemd import Systemd
from optictl.operations import previous_service, sealed_trial, service
from optictl.operations.context import Context
from optictl.operations.steps.base import Step
from optictl.releases.locks import ReleaseSpec


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
        # systemd starts no unit that has reached its limit of starts; the count of restarts, which
        # `start` resets, is another one
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
