"""The lock of a deployment, and what is refused once it is held: a plan that was not shown, one
that would fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from optictl.deployment.paths import Paths
from optictl.errors import Blocked, LocalChanges, Locked, PlanChanged, denied, of_os
from optictl.host import files
from optictl.operations import transaction
from optictl.operations.installation import Installation
from optictl.operations.steps import Step
from optictl.results import Result

#: Called with each step that is done.
Done = Callable[[Step], None]


@contextmanager
def locked(paths: Paths) -> Iterator[None]:
    """Be the only optictl that changes this deployment.

    Raises:
        OptictlError: another one is working on it; or a step failed, with what fixes it.
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
            f"{holder} is working on this deployment",
            remedy="wait until it ends, then run the command again",
        ) from None
    except PermissionError as error:
        raise denied(error.filename) from None
    except OSError as error:
        raise of_os(error).reworded(
            transaction.words_of(error),
            remedy="fix it, then run the command again; the active release was not changed",
        ) from None


@contextmanager
def decided(
    shown: Installation, plan_again: Callable[[], Installation], force: bool
) -> Iterator[Installation]:
    """Hold the lock and plan once more: the block gets what was shown, or what another optictl left
    of it to do.

    This second reading of the facts is intended. Between the plan that was shown and the lock
    anything may have changed, and only what was shown may be done.

    Raises:
        OptictlError: the new plan holds a step that was not shown, or a file was edited and `force`
            not given.
    """
    with locked(shown.paths):
        now = plan_again()
        refuse_other(shown.steps, now.steps)
        refuse_blocked(now)
        refuse_edited(now.steps, now.paths, force)
        yield now


def _what_is_done(step: Step) -> tuple[str, str, str, bool]:
    """What a step does, without its reason, which may change."""
    seen = step.describe()
    return seen.action, seen.target, seen.diff, seen.edited


def refuse_other(shown: Sequence[Step], now: Sequence[Step]) -> None:
    """Raise OptictlError if a plan holds a step that was not shown."""
    seen = {_what_is_done(step) for step in shown}
    if other := [step for step in now if _what_is_done(step) not in seen]:
        names = ", ".join(f"{step.action} {step.target}" for step in other)
        raise PlanChanged(
            "this deployment changed while the plan was shown",
            remedy="run the command again and look at the new plan",
            detail=f"not in the plan that was shown: {names}",
        )


def refuse_blocked(installation: Installation) -> None:
    """Raise OptictlError if preflight found what would make this installation fail."""
    refuse(installation.blockers)


def refuse(problems: Iterable[Result]) -> None:
    """Raise OptictlError with all of these problems, if there is one."""
    if blockers := list(problems):
        remedies = dict.fromkeys(problem.remedy for problem in blockers if problem.remedy)
        raise Blocked(
            "; ".join(problem.found for problem in blockers),
            remedy="; ".join(remedies),
            problems=[problem.as_dict() for problem in blockers],
        )


def refuse_edited(steps: Sequence[Step], paths: Paths, force: bool) -> None:
    """Raise OptictlError if a step would replace or remove a text that optictl did not write,
    unless `force` is given.
    """
    edited = [step.target for step in steps if step.edited]
    if not edited or force:
        return
    remedy = "use --force to overwrite (a backup is kept)"
    if str(paths.service) in edited or len(edited) > 1:
        remedy += f"; your own changes belong in {paths.service_unit}.d/*.conf"
    raise LocalChanges(f"{', '.join(edited)}: not what optictl wrote", remedy=remedy)
