"""systemd and its journal, through `systemctl`, `systemd-analyze` and `journalctl`."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optictl.deployment.paths import Scope
from optictl.errors import ToolError, timed_out

_LOG = logging.getLogger(__name__)

#: The oldest systemd that passes secrets to a service as credentials: LoadCredential=,
#: systemd.exec(5).
OLDEST_SUPPORTED = 247
#: Version -> options of the units that an older systemd ignores. Source: systemd's NEWS.
PROTECTIONS = {
    248: "NoExecPaths= and PrivateIPC= (no program from a writable place, no shared memory)",
    254: "RestartSteps= and RestartMaxDelaySec= (longer pauses between restarts)",
}
#: The last version in PROTECTIONS that improves security. Later ones improve convenience only.
LAST_PROTECTION = 248
#: Where distributions put systemd's helper programs, besides the tree of systemctl itself.
_LIBRARIES = (Path("/usr/lib/systemd"), Path("/lib/systemd"), Path("/usr/libexec/systemd"))
#: Scope -> directory of runtime units. They are gone after a reboot.
RUNTIME = {"system": Path("/run/systemd/system")}


def runtime_units(scope: Scope) -> Path:
    """The directory of units that are gone after a reboot. Source: systemd.unit(5)."""
    if scope == "system":
        return RUNTIME["system"]
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return Path(runtime) / "systemd/user"


def parse_version(text: str) -> int:
    """The major version in the output of `systemctl --version`: 260 for "systemd 260~rc2".

    0 when the output names no version.
    """
    match = re.match(r"systemd\s+v?(\d+)", text)
    return int(match[1]) if match else 0


def missing_protections(version: int) -> list[str]:
    """The options of the units that this systemd ignores. Empty for an unknown version (0)."""
    return [options for since, options in PROTECTIONS.items() if 0 < version < since]


def socket_proxyd() -> Path | None:
    """The path of systemd-socket-proxyd, systemd's socket relay. None when it is not installed."""
    systemctl = shutil.which("systemctl")
    trees = [Path(systemctl).resolve().parents[1] / "lib/systemd"] if systemctl else []
    places = [directory / "systemd-socket-proxyd" for directory in (*_LIBRARIES, *trees)]
    helper = next((path for path in places if path.is_file()), None)
    on_path = shutil.which("systemd-socket-proxyd")
    return helper or (Path(on_path) if on_path else None)


@dataclass(frozen=True)
class Unit:
    """The properties of a unit, as `systemctl show` prints them.

    Source: org.freedesktop.systemd1(5). A text is "" when systemd does not report the property:
    a socket has no MainPID, an old systemd lacks some.
    """

    name: str
    load_state: str = ""
    active_state: str = ""
    sub_state: str = ""
    result: str = ""
    #: "enabled", "enabled-runtime", "disabled", "static", ...: whether it starts at boot.
    unit_file_state: str = ""
    #: The unit file. "" for a unit without one.
    fragment_path: str = ""
    #: The drop-in files, in the order in which systemd applies them.
    drop_in_paths: tuple[str, ...] = ()
    #: The unit file or a drop-in changed on disk after systemd read it.
    need_daemon_reload: bool = False
    #: The process of the service. 0 when none runs.
    main_pid: int = 0
    #: Exit code of the last run, or the signal that ended it. 0 when it has not ended yet.
    #: Codes from 200 on are systemd's own: systemd.exec(5).
    exec_main_status: int = 0
    #: Automatic restarts since the unit was started.
    restarts: int = 0
    #: The STATUS= line of the service.
    status_text: str = ""
    active_enter_timestamp: str = ""
    state_change_timestamp: str = ""
    #: Bytes. None when systemd does not count memory.
    memory_current: int | None = None
    #: Bytes. None when there is no limit.
    memory_max: int | None = None

    @property
    def loaded(self) -> bool:
        """Whether the unit exists and its file is valid."""
        return self.load_state == "loaded"

    @property
    def active(self) -> bool:
        """Whether the unit runs, or starts at this moment."""
        return self.active_state in ("active", "reloading", "activating")


#: The properties to ask for: one for each field of `Unit` but its name.
_PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "UnitFileState",
    "FragmentPath",
    "DropInPaths",
    "NeedDaemonReload",
    "MainPID",
    "ExecMainStatus",
    "NRestarts",
    "StatusText",
    "ActiveEnterTimestamp",
    "StateChangeTimestamp",
    "MemoryCurrent",
    "MemoryMax",
)


def parse_unit(name: str, text: str) -> Unit:
    """The unit in one block of output of `systemctl show`: lines of the form NAME=VALUE. Pure."""
    properties = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def text_of(key: str) -> str:
        value = properties.get(key, "")
        return "" if value == "[not set]" else value

    def number(key: str) -> int | None:
        value = text_of(key)
        return int(value) if value.isdigit() else None  # MemoryMax may be "infinity"

    return Unit(
        name,
        load_state=text_of("LoadState"),
        active_state=text_of("ActiveState"),
        sub_state=text_of("SubState"),
        result=text_of("Result"),
        unit_file_state=text_of("UnitFileState"),
        fragment_path=text_of("FragmentPath"),
        drop_in_paths=tuple(text_of("DropInPaths").split()),
        need_daemon_reload=text_of("NeedDaemonReload") == "yes",
        main_pid=number("MainPID") or 0,
        exec_main_status=number("ExecMainStatus") or 0,
        restarts=number("NRestarts") or 0,
        status_text=text_of("StatusText"),
        active_enter_timestamp=text_of("ActiveEnterTimestamp"),
        state_change_timestamp=text_of("StateChangeTimestamp"),
        memory_current=number("MemoryCurrent"),
        memory_max=number("MemoryMax"),
    )


class Systemd:
    """The systemd manager of one scope: the system's, or the caller's own.

    A method that changes something raises `ToolError` with systemctl's own output when it fails.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._flags = ["--user"] if scope == "user" else []

    def _run(
        self, program: str, *arguments: str, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        command, began = [program, *self._flags, *arguments], time.monotonic()
        try:
            ended = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired as late:
            raise timed_out(late) from None
        seconds = time.monotonic() - began
        _LOG.debug("ran %s: exit %d, %.1f s", shlex.join(command), ended.returncode, seconds)
        return ended

    def _do(self, *arguments: str, timeout: float = 60) -> None:
        result = self._run("systemctl", *arguments, timeout=timeout)
        if result.returncode:
            raise ToolError(
                f"systemctl {' '.join(arguments)} failed",
                (result.stderr or result.stdout).strip()[-1000:],
            )

    def available(self) -> bool:
        """Whether this manager runs on this machine."""
        if self.scope == "system":
            # sd_booted(3); /run/systemd itself is in every image that has the package
            return RUNTIME["system"].is_dir() and self.version() > 0
        try:
            return self._run("systemctl", "show", "--property=Version", "--value").returncode == 0
        except OSError:
            return False

    def version(self) -> int:
        """The major version of systemd. 0 when it is not installed."""
        try:
            return parse_version(self._run("systemctl", "--version").stdout)
        except OSError:
            return 0

    def reload(self) -> None:
        """Read the unit files again."""
        self._do("daemon-reload")

    def enable(self, *units: str, runtime: bool = False) -> None:
        """Start units at boot. With `runtime`, systemd forgets this at the next boot."""
        self._do("enable", "--quiet", *(["--runtime"] if runtime else []), *units)

    def disable(self, *units: str) -> None:
        """Do not start units at boot."""
        self._do("disable", "--quiet", *units)

    def start(self, *units: str) -> None:
        """Start units. For a service of Type=notify, wait until it reports READY=1."""
        self._do("start", *units, timeout=180)

    def stop_without_waiting(self, *units: str) -> None:
        """Stop units in the background: return before they have stopped."""
        self._do("stop", "--no-block", *units)

    def stop(self, *units: str, seconds: float = 60) -> None:
        """Stop units and wait for it. `seconds`: how long they may drain."""
        self._do("stop", *units, timeout=seconds + 60)

    def restart(self, *units: str, seconds: float = 60) -> None:
        """Restart units and wait for it. `seconds`: how long they may drain."""
        self._do("restart", *units, timeout=seconds + 180)

    def reset_failed(self, *units: str) -> None:
        """Clear the failed state of units, and the count of their starts."""
        self._run("systemctl", "reset-failed", *units)

    def clean(self, *units: str) -> None:
        """Remove the runtime directories of units (below /run)."""
        self._run("systemctl", "clean", "--what=runtime", *units)

    def show(self, unit: str) -> Unit:
        """The properties of a unit. `load_state` is "not-found" when it does not exist."""
        return self.show_all(unit)[0]

    def show_all(self, *units: str) -> list[Unit]:
        """The properties of several units, in their order, from one call of systemctl."""
        out = self._run("systemctl", "show", *units, f"--property={','.join(_PROPERTIES)}").stdout
        # systemctl puts a blank line between two units
        blocks = [*out.split("\n\n"), *([""] * len(units))]
        return [parse_unit(unit, block) for unit, block in zip(units, blocks, strict=False)]

    def listening_sockets(self, port: int) -> list[str]:
        """The socket units that listen on this TCP port."""
        # without --state=active, a failed socket is listed too, although it does not listen
        options = ("--state=active", "--no-legend", "--no-pager", "--plain")
        lines = self._run("systemctl", "list-sockets", *options).stdout.splitlines()
        rows = [line.split() for line in lines]
        return [row[1] for row in rows if len(row) > 1 and row[0].endswith(f":{port}")]

    def environment(self) -> list[str]:
        """The names of the environment variables that the manager passes to every unit."""
        lines = self._run("systemctl", "show-environment").stdout.splitlines()
        return [
            name
            for name, sign, _ in (line.partition("=") for line in lines)
            if sign and name.isidentifier()
        ]

    def exposure(self, unit_file: Path) -> float | None:
        """The score of `systemd-analyze security`: 0 (all protections) to 10 (none).

        None when systemd-analyze does not print one.
        """
        result = self._run(
            "systemd-analyze", "security", "--offline=true", "--no-pager", str(unit_file)
        )
        for line in reversed(result.stdout.splitlines()):
            if "Overall exposure level" in line:
                return float(line.split(":")[1].split()[0])
        return None

    def verify(self, *unit_files: Path) -> str:
        """The output of `systemd-analyze verify`: "" when it has no complaint.

        Its exit code is 0 for many mistakes.
        """
        result = self._run("systemd-analyze", "verify", *map(str, unit_files))
        return (result.stdout + result.stderr).strip()

    def journal(self, unit: str, *options: str) -> list[dict[str, Any]]:
        """The journal entries of a unit, oldest first: its own, and the manager's about it."""
        result = self._run("journalctl", "--output=json", "--no-pager", f"--unit={unit}", *options)
        return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]

    def stream_journal(
        self, units: Sequence[str], *options: str
    ) -> Generator[dict[str, Any], None, None]:
        """Read the journal entries of units one by one, until the caller closes the generator.

        They are in one order, that of their times.

        With the option --follow, wait for new entries at the end.

        Raises:
            ToolError: journalctl refuses an option. Its own message is already on stderr.
        """
        command = [
            "journalctl",
            *self._flags,
            "--output=json",
            "--no-pager",
            *(f"--unit={unit}" for unit in units),
            *options,
        ]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
        ) as process:
            try:
                for line in process.stdout or ():
                    if line.startswith("{"):
                        yield json.loads(line)
                if process.wait():
                    raise ToolError("journalctl failed", f"exit code {process.returncode}")
            finally:
                process.terminate()
