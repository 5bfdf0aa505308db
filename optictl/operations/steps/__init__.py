"""The steps of a plan: one small class for each kind, which shows itself, applies itself and can be
undone.

A plan is a list of steps. `describe` is what the plan shows, in a table or as JSON; `action` and
`done` are the words for it; no code compares them. `apply` does the step. `undo` returns what the
step changed to the state before the run; it may be called for a step that failed or was not
reached. Only files and the active release are undone step by step: `operations/transaction.py`
brings the units back afterwards, once the files are in place.
"""

from optictl.operations.steps.base import Description, Effect, Step
from optictl.operations.steps.files import (
    CreateFile,
    EditConfiguration,
    FileStep,
    KeepLock,
    MoveAside,
    PathStep,
    RecordFiles,
    Remove,
    ReplaceFile,
    SetMode,
    SetOwner,
)
from optictl.operations.steps.releases import (
    BuildRelease,
    ConfirmRelease,
    ProofStep,
    ProveCanary,
    SwitchRelease,
    TryPromises,
)
from optictl.operations.steps.units import (
    DeploymentStep,
    DisableDeployment,
    DisableUnit,
    DrainAndRestart,
    EnableUnits,
    HandOver,
    ReloadSystemd,
    RestartSocket,
    RestartUnit,
    RestoreService,
    RunTrial,
    StartService,
    StartSibling,
    StartUnit,
    StopCheck,
    StopDeployment,
    StopSibling,
    StopTrial,
    StopUnit,
    SystemdStep,
    UnitStep,
)

__all__ = [
    "BuildRelease",
    "ConfirmRelease",
    "CreateFile",
    "DeploymentStep",
    "Description",
    "DisableDeployment",
    "DisableUnit",
    "DrainAndRestart",
    "EditConfiguration",
    "Effect",
    "EnableUnits",
    "FileStep",
    "HandOver",
    "KeepLock",
    "MoveAside",
    "PathStep",
    "ProofStep",
    "ProveCanary",
    "RecordFiles",
    "ReloadSystemd",
    "Remove",
    "ReplaceFile",
    "RestartSocket",
    "RestartUnit",
    "RestoreService",
    "RunTrial",
    "SetMode",
    "SetOwner",
    "StartService",
    "StartSibling",
    "StartUnit",
    "Step",
    "StopCheck",
    "StopDeployment",
    "StopSibling",
    "StopTrial",
    "StopUnit",
    "SwitchRelease",
    "SystemdStep",
    "TryPromises",
    "UnitStep",
]
