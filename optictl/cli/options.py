"""The options that commands share, and the object that they become.

A command is a function whose first parameter is a `Call` (or a `FleetCall`, or a `Terminal`).
`command` adds the shared options to it, makes that object of them, and ends the run.
"""

from __future__ import annotations

import enum
import inspect
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optictl import __version__
from optictl.cli import help_pages
from optictl.deployment.paths import NAME
from optictl.output.console import Screen, Terminal

if TYPE_CHECKING:
    from optictl.deployment.config import Config
    from optictl.deployment.paths import Paths
    from optictl.host.playbooks import Hosts
    from optictl.output.progress import Steps


class Output(str, enum.Enum):
    """How results are written."""

    text = "text"
    json = "json"


class CheckOutput(str, enum.Enum):
    """How the results of checks are written."""

    text = "text"
    json = "json"
    nagios = "nagios"
    prometheus = "prometheus"


# -- options of one command, or of a few

KeyFileOption = Annotated[
    Path | None,
    typer.Option(
        "--key-file", metavar="FILE", exists=True, help="Key to send, instead of the proxy key."
    ),
]
SaveOption = Annotated[
    Path | None,
    typer.Option("--save", metavar="FILE", dir_okay=False, help="Also draw it, as one HTML file."),
]
ContentOption = Annotated[
    bool, typer.Option("--content", help="Include the prompts and answers of every call.")
]
WheelhouseOption = Annotated[
    Path | None,
    typer.Option(
        "--wheelhouse",
        metavar="DIR",
        exists=True,
        file_okay=False,
        resolve_path=False,
        help="Install from these wheels, offline.",
    ),
]
SourceOption = Annotated[
    Path | None,
    typer.Option(
        "--wheelhouse",
        metavar="DIR",
        exists=True,
        file_okay=False,
        help="Take wheels from here, not from an index.",
    ),
]
PythonOption = Annotated[
    Path | None,
    typer.Option(
        "--python", metavar="PATH", exists=True, dir_okay=False, help="Build on this interpreter."
    ),
]
ForceOption = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Overwrite local changes; replace a service written by hand. A backup is kept.",
    ),
]
SecretsComeOption = Annotated[
    bool,
    typer.Option(
        "--secrets-come", hidden=True, help="The caller writes the secrets before it installs."
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", envvar="OPTICTL_YES", help="Do not ask.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")]
DetailedOption = Annotated[
    bool,
    typer.Option(
        "--detailed-exitcode",
        help="With --dry-run: exit with 0 if there is nothing to do, with 2 if there is.",
    ),
]


class Diff(str, enum.Enum):
    """How much of the files a plan shows."""

    changes = "changes"
    full = "full"


DiffOption = Annotated[
    Diff,
    typer.Option("--diff", help="What a plan shows of files: the changed lines; or new files too."),
]


def refuse_undetailed(detailed: bool, dry_run: bool) -> None:
    """--detailed-exitcode has a meaning for a plan only."""
    if detailed and not dry_run:
        raise typer.BadParameter("goes with --dry-run", param_hint="--detailed-exitcode")


# -- options of many commands


def _shared(name: str, kind: Any, option: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, option],
    )


CONFIG = _shared(
    "config",
    Path | None,
    typer.Option(
        "--config",
        metavar="PATH",
        envvar="OPTICTL_CONFIG",
        readable=False,  # our own error has a remedy
        help="Configuration file instead of the deployment's own.",
    ),
)
ROOT = _shared(
    "root",
    Path | None,
    typer.Option(
        "--root",
        metavar="DIR",
        envvar="OPTICTL_ROOT",
        readable=False,
        help="A deployment wholly below DIR.",
    ),
)
USER = _shared(
    "user",
    bool,
    typer.Option("--user", help="Your own deployment (XDG directories) instead of the system's."),
    default=False,
)
NAMED = _shared(
    "name",
    str,
    typer.Option(
        "--name",
        metavar="NAME",
        envvar="OPTICTL_NAME",
        help="Which deployment of this host. Default: optillm-proxy.",
    ),
    default=NAME,
)
OUTPUT = _shared(
    "output",
    Output,
    typer.Option("--output", "-o", help="text for people, json for programs."),
    default=Output.text,
)
CHECK_OUTPUT = _shared(
    "output",
    CheckOutput,
    typer.Option(
        "--output",
        "-o",
        help="text for people; json, nagios (its exit codes too) or prometheus.",
    ),
    default=CheckOutput.text,
)


class Progress(str, enum.Enum):
    """How the steps of a command are shown."""

    auto = "auto"
    plain = "plain"
    json = "json"
    off = "off"


PROGRESS = _shared(
    "progress",
    Progress,
    typer.Option(
        "--progress",
        envvar="OPTICTL_PROGRESS",
        help="Steps on the standard error: auto moves on a terminal, json for programs.",
    ),
    default=Progress.auto,
)
VERBOSE = _shared(
    "verbose",
    bool,
    typer.Option("--verbose", "-v", help="Also show the programs that are run."),
    default=False,
)
QUIET = _shared(
    "quiet", bool, typer.Option("--quiet", "-q", help="Only results and errors."), default=False
)
#: How much of what a command does is shown. Every command with --output has these, too.
SCREEN = (PROGRESS, VERBOSE, QUIET)
#: Where a deployment is; and with its configuration.
PLACE = (ROOT, USER, NAMED)
DEPLOYMENT = (CONFIG, *PLACE)
PLACE_AND_OUTPUT = (*PLACE, OUTPUT)
DEPLOYMENT_AND_OUTPUT = (*DEPLOYMENT, OUTPUT)

INVENTORY = inspect.Parameter(
    "inventory",
    inspect.Parameter.KEYWORD_ONLY,
    annotation=Annotated[
        list[str],
        typer.Option(
            "--inventory",
            "-i",
            metavar="INVENTORY",
            envvar="OPTICTL_INVENTORY",
            help="Ansible's inventory: a file, a directory, or host names with commas."
            " May be repeated.",
        ),
    ],
)
LIMIT = _shared(
    "limit",
    str,
    typer.Option("--limit", "-l", metavar="PATTERN", help="Only these hosts, as Ansible takes it."),
    default="",
)
FORKS = _shared(
    "forks",
    int,
    typer.Option("--forks", metavar="N", min=1, help="Hosts at the same moment, within a batch."),
    default=10,
)
VAULT = _shared(
    "vault_password_file",
    Path | None,
    typer.Option(
        "--vault-password-file",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="As Ansible takes it.",
    ),
)
FLEET = (INVENTORY, LIMIT, FORKS, VAULT, OUTPUT)


# -- what they become


@dataclass(frozen=True)
class Call:
    """One run of a command: the deployment that its options name, and the way to the screen."""

    terminal: Terminal
    paths: Paths
    config_path: Path
    explicit: bool

    @contextmanager
    def changing(self, title: str) -> Iterator[Steps]:
        """The steps of what changes this deployment. They are kept in a log file, and a signal
        ends them in order.

        Raises:
            Interrupted: a signal came; the error says what is active and how to continue.
        """
        from optictl.errors import Interrupted
        from optictl.host import processes
        from optictl.releases import store

        log, again = self.terminal.run_log, self.terminal.invocation.again
        log.write(f"optictl {__version__}: {again}")
        log.open(self.paths.log, self.terminal.command)
        before = store.active_release(self.paths)
        try:
            with self.terminal.progress(title) as say, processes.raise_on_signals():
                yield say
        except KeyboardInterrupt as signal:
            after = store.active_release(self.paths)
            active = f"{after} is active" if after else "no release is active"
            same = ", as before" if after == before else ""
            again = f"{self.terminal.invocation.program} {again}".strip()
            interrupted = Interrupted(
                f"interrupted while {title}: {active}{same}",
                f"run it again, it continues from what is there: {again}",
            )
            interrupted.exit_code = getattr(signal, "code", Interrupted.exit_code)
            raise interrupted from None

    def config(self) -> Config:
        """Its configuration; the defaults where there is no file and none was named."""
        from optictl.facts import config_file

        return config_file.load(self.config_path, required=self.explicit)


@dataclass(frozen=True)
class FleetCall:
    """One run of a fleet command: the hosts that its options name, and the way to the screen."""

    terminal: Terminal
    hosts: Hosts


def bare(terminal: Terminal, given: Mapping[str, Any]) -> Terminal:
    """What a command gets that is about no deployment."""
    return terminal


def deployment(terminal: Terminal, given: Mapping[str, Any]) -> Call:
    """What a command gets that is about one deployment. Messages spell commands for its caller."""
    from optictl.host import program

    paths = paths_of(given["root"], given["user"], given["name"])
    config: Path | None = given.get("config")
    terminal.invocation = program.invocation(
        paths.scope,
        paths.is_private,
        os.environ,
        sys.argv,
        place=paths.flags,
        config=f"--config {shlex.quote(str(config.absolute()))}" if config else "",
    )
    return Call(terminal, paths, config.absolute() if config else paths.config, config is not None)


def paths_of(root: Path | None, user: bool, name: str) -> Paths:
    """The deployment that --root, --user and --name select."""
    from optictl.deployment import paths

    if root is not None and user:
        raise typer.BadParameter("--root and --user exclude each other")
    if problem := paths.name_problem(name):
        raise typer.BadParameter(problem, param_hint="--name")
    if user:
        return paths.user(os.environ, name)
    named = paths.system(root.absolute() if root else None, name)
    # with links resolved in what a sandbox binds: systemd follows none of them there
    return replace(named, opt=named.opt.resolve(), home=named.home.resolve())


def fleet(terminal: Terminal, given: Mapping[str, Any]) -> FleetCall:
    """What a fleet command gets, once it is sure that Ansible is there."""
    from optictl.host import playbooks

    need_fleet_extra()
    for name in given["inventory"]:
        if "," not in name and not Path(name).exists():
            raise typer.BadParameter(f"there is no {name}", param_hint="--inventory")
    names = " ".join(f"-i {shlex.quote(name)}" for name in given["inventory"])
    terminal.invocation = replace(terminal.invocation, inventory=names)
    vault: Path | None = given["vault_password_file"]
    return FleetCall(
        terminal,
        playbooks.Hosts(
            tuple(given["inventory"]),
            given["limit"],
            given["forks"],
            vault.absolute() if vault else None,
        ),
    )


def need_fleet_extra() -> None:
    """Raise MissingExtra unless the packages of the extra `fleet` are installed."""
    from optictl.errors import missing_extra
    from optictl.host import playbooks

    if missing := playbooks.missing():
        raise missing_extra(missing)


# -- a function as a command

Resolve = Callable[[Terminal, Mapping[str, Any]], Any]


def command(
    app: typer.Typer,
    name: str,
    function: Callable[..., int | None],
    *,
    example: str,
    shared: Sequence[inspect.Parameter] = (),
    resolve: Resolve = bare,
    panel: str | None = None,
    hidden: bool = False,
) -> None:
    """Add a function to the command line, with the shared options behind its own."""
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    shared = (*shared, *_screen(own, shared))
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

    def run(context: typer.Context, **values: Any) -> int:
        given = {parameter.name: values.pop(parameter.name) for parameter in shared}
        return _run(function, resolve, context, given, values)

    parameters = [
        context,
        # an option without a default comes first, as INVENTORY does
        *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own),
        *shared,
    ]
    run.__name__, run.__doc__ = function.__name__, _paragraphs(function)
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    app.command(
        name,
        cls=help_pages.Command,
        rich_help_panel=panel,
        epilog=f"Example: {example}",
        hidden=hidden,
    )(run)


def _screen(
    own: Sequence[inspect.Parameter], shared: Sequence[inspect.Parameter]
) -> list[inspect.Parameter]:
    """The options of SCREEN that a command with --output does not have yet."""
    has = {parameter.name for parameter in (*own, *shared)}
    return [option for option in SCREEN if "output" in has and option.name not in has]


def _paragraphs(function: Callable[..., Any]) -> str:
    """A docstring as a help text: each paragraph on one line, which the terminal's width breaks."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def deployment_commands(app: typer.Typer, panel: str) -> Callable[..., None]:
    """`command` for the commands of a module that are about one deployment."""
    return partial(command, app, resolve=deployment, panel=panel)


def _run(
    function: Callable[..., int | None],
    resolve: Resolve,
    context: typer.Context,
    given: Mapping[str, Any],
    values: Mapping[str, Any],
) -> int:
    """Run a command. Returns its exit code."""
    from optictl.cli import ending

    output = given.get("output", Output.text)
    screen = _screen_of({**given, **values})
    terminal = Terminal(ending.command_name(context), output.value, screen=screen)
    debug = bool(context.find_root().params.get("debug"))
    try:
        with terminal.listening():
            if "output" in given:
                terminal.wait()
            code = function(resolve(terminal, given), **values)
            terminal.run_log.write(f"ended with exit code {code or 0}")
        terminal.flush()
    except typer.Exit as end:
        return end.exit_code
    except ending.UsageError as wrong:
        if getattr(wrong, "ctx", None) is None:
            wrong.ctx = context  # type: ignore[attr-defined]
        raise
    except (Exception, KeyboardInterrupt) as failure:  # noqa: BLE001
        return ending.failed(terminal, failure, debug=debug)
    return code or 0


def _screen_of(values: Mapping[str, Any]) -> Screen:
    """How much a command shows, from its options."""
    if values.get("quiet") and values.get("verbose"):
        raise typer.BadParameter("--verbose and --quiet exclude each other")
    verbosity = 1 if values.get("verbose") else -1 if values.get("quiet") else 0
    steps = values.get("progress", Progress.auto)
    return Screen(steps.value, verbosity)


def refuse_no_directory(option: str, file: Path | None) -> None:
    """A file that cannot be made where it is wanted ends the command before any work is done."""
    if file is not None and not file.absolute().parent.is_dir():
        raise typer.BadParameter(
            f"there is no directory {file.absolute().parent}", param_hint=option
        )
