"""The exceptions of optictl: one tree, one stable code per class.

Every failure that a user can see is an `OptictlError`. It says what is wrong (`what`), gives the
command that fixes it (`remedy`), and has a `code` that programs may compare. The code never
changes; the sentences may. `code` stands in the `error` object of every JSON envelope, and
docs/reference/error-codes.md lists all codes: `scripts/error_codes_page.py` writes it from this
module. The docstring of a class is its entry: the first sentence says what happened, and the
paragraph that begins with "Fix:" says what to do.

    OptictlError              failed
      UsageFailure            usage            exit code 2
      ConfigError             config-invalid   exit code 78
      ConfigMissing           config-missing
      Blocked                 blocked
      LocalChanges            local-changes
      PlanChanged             plan-changed
      NotConfirmed            not-confirmed
      Locked                  locked
      RolledBack              rolled-back      exit code 4
      Interrupted             interrupted      exit code 130, or 128 + the number of the signal
      ToolError               tool-failed
        TimedOut              timeout
      ToolMissing             tool-missing
      MissingExtra            missing-extra
      MissingFact             missing-fact
        NotInstalled          not-installed
        NotApplicable         not-applicable
      NoSystemd               no-systemd
      NoLock                  no-lock
      NoSuchVersion           no-such-version
      ReleaseRefused          release-refused
      NoPython                no-python
      NoWheel                 no-wheel
      NoHosts                 no-hosts
      ConfigNotEdited         config-not-edited
      ProgramInHome           program-in-home
      UnsafePath              unsafe-path
      PortInUse               port-in-use
      ReleaseDamaged          release-damaged
      ReleaseFailed           release-failed
      ProofFailed             proof-failed
      NotReady                not-ready
      UnknownModel            unknown-model    exit code 2
      NoTrace                 no-trace
      RequestsFailed          requests-failed
      BudgetTooSmall          budget-too-small
      InvalidFile             invalid-file
      NoPermission            permission
      NoSpace                 no-space
      FileFailure             file
      OutputFailed            output-failed
      InternalError           internal

`of_exception` turns what Python and its libraries raise into one of these. The exit code of a
class without one above is 1.
"""

from __future__ import annotations

import errno
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


def os_words(failure: OSError) -> str:
    """What the system says is wrong, and with which file."""
    return f"{failure.strerror or failure}: {failure.filename or ''}".rstrip(": ")


class OptictlError(Exception):
    """An operation failed for a reason without a separate code; `what` names it.

    Fix: run the command in `remedy`.
    """

    code = "failed"
    exit_code = 1

    def __init__(
        self, what: str, remedy: str = "", detail: str = "", problems: Sequence[dict[str, Any]] = ()
    ) -> None:
        """`detail`: the last lines of a tool or a log.

        `problems`: where several things are wrong.
        """
        super().__init__(what)
        self.what, self.remedy, self.detail = what, remedy, detail
        self._problems = problems

    def reworded(self, what: str, remedy: str = "", detail: str = "") -> OptictlError:
        """The same failure with more words about what it means.

        `remedy` and `detail` stay unless given.
        """
        new = OptictlError(what, remedy or self.remedy, detail or self.detail, self._problems)
        new.code, new.exit_code = self.code, self.exit_code
        return new

    def as_dict(self) -> dict[str, Any]:
        """The `error` object of the JSON envelope."""
        return {
            "code": self.code,
            "what": self.what,
            "remedy": self.remedy,
            **({"problems": list(self._problems)} if self._problems else {}),
        }


class UsageFailure(OptictlError):
    """The command line is wrong: an unknown command or option, or a value that is not allowed.

    Fix: see the command's `--help`.
    """

    code = "usage"
    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a configuration file. `line` is None where no line is to blame."""

    path: str
    line: int | None
    message: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.path}: {self.message}" if self.path else f"{where}{self.message}"


class ConfigError(OptictlError):
    """The configuration file is not valid. `problems` lists every problem with its line.

    Fix: edit the file; `optictl config schema` prints the keys and values that are allowed.
    """

    code = "config-invalid"
    exit_code = 78  # sysexits.h EX_CONFIG

    def __init__(self, source: str, problems: list[Problem]) -> None:
        super().__init__(
            f"the configuration {source} cannot be used",
            f"edit {source}; optictl config schema prints the keys and values that are allowed",
            "\n".join(map(str, problems)),
            [asdict(problem) for problem in problems],
        )
        self.source, self.problems = source, problems


class ConfigMissing(OptictlError):
    """The configuration file that `--config` names does not exist.

    Fix: correct the path, or write a file with `optictl config show`.
    """

    code = "config-missing"


class Blocked(OptictlError):
    """The checks before an installation or an upgrade found a problem. Nothing was changed.

    Fix: `problems` has one command for each problem.
    """

    code = "blocked"


class LocalChanges(OptictlError):
    """A file that optictl would replace has local changes. Nothing was changed.

    Fix: use --force to overwrite it (a backup is kept).
    """

    code = "local-changes"


class PlanChanged(OptictlError):
    """The deployment changed after the plan was shown. Nothing was changed.

    Fix: run the command again and read the new plan.
    """

    code = "plan-changed"


class NotConfirmed(OptictlError):
    """The command needs an answer, and got "no" or has no terminal to ask at. Nothing was changed.

    Fix: read the plan with --dry-run, then run the command with --yes.
    """

    code = "not-confirmed"


class Locked(OptictlError):
    """Another optictl process works on the same deployment or file.

    Fix: wait until it ends, then run the command again.
    """

    code = "locked"


class RolledBack(OptictlError):
    """A change failed after it had begun. The previous release is active again.

    Fix: `remedy` names the cause's own fix, or `optictl logs --errors`.
    """

    code = "rolled-back"
    exit_code = 4


class Interrupted(OptictlError):
    """Ctrl-C or a signal ended the command.

    Fix: run the command again; it continues from what is there.
    """

    code = "interrupted"
    exit_code = 130


class ToolError(OptictlError):
    """A program that optictl runs (uv, systemctl, journalctl, pip) failed.
    `output` is the end of its output.

    Fix: correct what its output names, then run the command again.
    """

    code = "tool-failed"

    def __init__(self, what: str, output: str, remedy: str = "") -> None:
        super().__init__(what, remedy, output)
        self.output = output


class TimedOut(ToolError):
    """A program or a server did not answer in time.

    Fix: look for what blocks it (`systemctl list-jobs`, a full or slow disk),
    then run the command again.
    """

    code = "timeout"


class ToolMissing(OptictlError):
    """A program that optictl needs is not installed.

    Fix: install it.
    """

    code = "tool-missing"


class MissingExtra(OptictlError):
    """The command needs Python packages of an optional extra.

    Fix: install optictl with the extra, such as `uv tool install 'optictl[fleet]'`.
    """

    code = "missing-extra"


class MissingFact(OptictlError):
    """Something that the command needs cannot be read on this machine;
    a check that needs it is skipped.

    Fix: `what` names what is missing, and often the check that explains it.
    """

    code = "missing-fact"


class NotInstalled(MissingFact):
    """The deployment has no active release, or no release or service to return to.

    Fix: `optictl install`.
    """

    code = "not-installed"


class NotApplicable(MissingFact):
    """The question does not arise for this deployment, such as that of a unit below --root.
    A check that asks it is skipped and not counted.

    Fix: nothing is wrong.
    """

    code = "not-applicable"


class NoSystemd(OptictlError):
    """The command needs systemd, which does not run here or does not manage the deployment.

    Fix: run the service in the foreground with `optictl run`.
    """

    code = "no-systemd"


class NoLock(OptictlError):
    """optictl has no lock file for this version and profile of OptiLLM, and cannot make one for it.

    Fix: upgrade to the version that `remedy` names, or make a lock file with
    `optictl upgrade VERSION --resolve`.
    """

    code = "no-lock"


class NoSuchVersion(OptictlError):
    """The package index has no such version of OptiLLM.

    Fix: `optictl upgrade --list` shows the versions.
    """

    code = "no-such-version"


class ReleaseRefused(OptictlError):
    """The guard's promises do not hold on this version of OptiLLM. Nothing was built or kept.

    Fix: upgrade to a version that works; `optictl upgrade --list` shows them.
    """

    code = "release-refused"


class NoPython(OptictlError):
    """No interpreter on this machine is suitable for a release. `detail` says why for each.

    Fix: install one; `remedy` is the command for this machine.
    """

    code = "no-python"


class NoWheel(OptictlError):
    """A wheelhouse has no wheel with a hash in the lock file.

    Fix: remove the wheelhouse, then run the command again.
    """

    code = "no-wheel"


class NoHosts(OptictlError):
    """Ansible finds no host in the inventory, or none that `--limit` matches.

    Fix: correct the inventory or `--limit`.
    """

    code = "no-hosts"


class ConfigNotEdited(OptictlError):
    """optictl cannot set a value in the configuration file, because of the way it is written.

    Fix: set the value by hand.
    """

    code = "config-not-edited"


class ProgramInHome(OptictlError):
    """A unit cannot run this optictl, because it is in a user's home.

    Fix: install optictl for the whole machine, or set monitoring.timer to false.
    """

    code = "program-in-home"


class UnsafePath(OptictlError):
    """A directory that optictl writes to is a link or belongs to another user. Nothing was changed.

    Fix: check its content, then remove the link or change its owner.
    """

    code = "unsafe-path"


class PortInUse(OptictlError):
    """Another program listens on the service's port.

    Fix: stop it; `optictl check --only process` names it.
    """

    code = "port-in-use"


class ReleaseDamaged(OptictlError):
    """The files of a release are not those that were installed.

    Fix: rebuild it with `optictl install` or `optictl upgrade VERSION`.
    """

    code = "release-damaged"


class ReleaseFailed(OptictlError):
    """The release to return to was rolled back before. `what` says when and why.

    Fix: `optictl upgrade VERSION` tries it again.
    """

    code = "release-failed"


class ProofFailed(OptictlError):
    """A release, or a service after a change, does not do what it must.

    `what` says which test failed.

    Fix: `remedy` names it; otherwise correct what `what` and `detail` name.
    """

    code = "proof-failed"


class NotReady(OptictlError):
    """OptiLLM started and did not become ready, or ended at once. `detail` has the end of its log.

    Fix: correct what the log names.
    """

    code = "not-ready"


class UnknownModel(OptictlError):
    """The model is not an enabled strategy on a base model of this deployment.

    Fix: `remedy` lists the models.
    """

    code = "unknown-model"
    exit_code = 2


class NoTrace(OptictlError):
    """The service has no trace of a request.

    Fix: see `what`: a release that is too old, a request that ran no strategy, or
    limits.max_traces.
    """

    code = "no-trace"


class RequestsFailed(OptictlError):
    """A comparison stopped: several requests in succession failed, nothing is left to compare, or
    the proxy or LiteLLM does not answer. `detail` has the last failure.

    Fix: correct its cause, then continue with the command in `remedy`.
    """

    code = "requests-failed"


class BudgetTooSmall(OptictlError):
    """The budget of a comparison is too small for its first question.

    Fix: use a larger `--budget-tokens`.
    """

    code = "budget-too-small"


class InvalidFile(OptictlError):
    """A file that the command line or the configuration names has content that cannot be used.

    Fix: correct the file, or name another one.
    """

    code = "invalid-file"


class NoPermission(OptictlError):
    """The user may not read or write a file.

    Fix: use sudo, or a deployment of your own (--user or --root DIR).
    """

    code = "permission"


class NoSpace(OptictlError):
    """A file system is full, or the user's quota is used up.

    Fix: free some space (`df -h`), then run the command again.
    """

    code = "no-space"


class FileFailure(OptictlError):
    """The system cannot read or write a file.

    Fix: correct what `what` names, then run the command again.
    """

    code = "file"


class OutputFailed(OptictlError):
    """The standard output cannot be written: its file system is full, or it is closed.

    Fix: send the output somewhere else. The command itself may have done its work.
    """

    code = "output-failed"


class InternalError(OptictlError):
    """A fault in optictl.

    Fix: report it with the traceback that `optictl --debug COMMAND ...` prints.
    """

    code = "internal"


_FULL = (errno.ENOSPC, errno.EDQUOT)
_AGAIN = "then run the command again"


def output_failed(failure: OSError) -> OutputFailed:
    """The error for a standard output that cannot be written."""
    return OutputFailed(
        f"the standard output cannot be written: {os_words(failure)}",
        "free some space, or send the output somewhere else; the command itself has ended",
    )


def denied(path: object) -> NoPermission:
    """The error for a file that this user may not read or write."""
    return NoPermission(
        f"no permission for {path}",
        "run it with sudo, or use --user or --root DIR for a deployment of your own",
    )


def of_os(failure: OSError) -> OptictlError:
    """The error for what the system refused."""
    if isinstance(failure, PermissionError) and failure.filename:
        return denied(failure.filename)
    if failure.errno in _FULL:
        where = f" {shlex.quote(str(failure.filename))}" if failure.filename else ""
        return NoSpace(os_words(failure), f"free some space (df -h{where}), {_AGAIN}")
    return FileFailure(os_words(failure), f"fix it, {_AGAIN}")


def of_exception(failure: BaseException) -> OptictlError:
    """The error for whatever was raised."""
    match failure:
        case OptictlError():
            return failure
        case KeyboardInterrupt():
            interrupted = Interrupted("interrupted")
            interrupted.exit_code = getattr(failure, "code", Interrupted.exit_code)
            return interrupted
        case subprocess.TimeoutExpired():
            return timed_out(failure)
        case OSError():
            return of_os(failure)
        case ModuleNotFoundError() if failure.name in FLEET_EXTRA:
            return missing_extra([FLEET_EXTRA[failure.name]])
        case _:
            # a library that fails without a word leaves its name at least
            words = str(failure) or type(failure).__name__
            return InternalError(
                f"internal error (please report it): {words}",
                "run it again as optictl --debug COMMAND ... and report the traceback",
            )


#: Module -> package of the extra `fleet`.
FLEET_EXTRA = {
    "ansible": "ansible-core",
    "ansible_runner": "ansible-runner",
    "pip": "pip",
}


def missing_extra(packages: Sequence[str]) -> MissingExtra:
    """The error for packages of the extra `fleet` that are not installed."""
    verb = "is" if len(packages) == 1 else "are"
    return MissingExtra(
        f"optictl fleet needs {', '.join(packages)}, which {verb} not installed",
        "uv tool install 'optictl[fleet]', or: pipx install 'optictl[fleet]'",
    )


def timed_out(failure: subprocess.TimeoutExpired) -> TimedOut:
    """The error for a program that did not end in time."""
    command = failure.cmd if isinstance(failure.cmd, str) else shlex.join(map(str, failure.cmd))
    return TimedOut(
        f"{command} did not end within {failure.timeout:g} s",
        output="",
        remedy=f"look for what blocks it (systemctl list-jobs, a full or slow disk), {_AGAIN}",
    )


def classes(of: type[OptictlError] = OptictlError) -> list[type[OptictlError]]:
    """The tree, each class before those below it."""
    return [of, *(each for below in of.__subclasses__() for each in classes(below))]
