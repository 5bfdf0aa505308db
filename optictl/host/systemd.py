"""systemd and its journal, asked and told through their own programs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optictl.deployment.paths import Scope
from optictl.host.uv import ToolError

#: The oldest systemd that gives a service its secrets as credentials (LoadCredential=, systemd.exec(5)).
FLOOR = 247
#: version -> what the units have from it on and an older systemd ignores (systemd's NEWS).
PROTECTIONS = {
    248: "NoExecPaths= and PrivateIPC= (no program from a writable place, no shared memory)",
    254: "RestartSteps= and RestartMaxDelaySec= (longer pauses between restarts)",
}
#: The last version that brought one which keeps something out; later ones only make it more convenient.
LAST_PROTECTION = 248
#: Where distributions put what systemd starts for itself, besides the tree that systemctl lies in.
_LIBRARIES = (Path("/usr/lib/systemd"), Path("/lib/systemd"), Path("/usr/libexec/systemd"))
#: A unit written here is gone after a reboot.
RUNTIME = {"system": Path("/run/systemd/system")}


def runtime_units(scope: Scope) -> Path:
    """The directory of units that are gone after a reboot (systemd.unit(5))."""
    if scope == "system":
        return RUNTIME["system"]
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return Path(runtime) / "systemd/user"


_PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "MainPID",
    "ExecMainStatus",
    "ExecMainCode",
    "NRestarts",
    "StatusText",
    "ActiveEnterTimestamp",
    "StateChangeTimestamp",
    "MemoryCurrent",
    "MemoryMax",
    "TasksCurrent",
    "UnitFileState",
    "NeedDaemonReload",
    "DropInPaths",
    "InvocationID",
    "FragmentPath",
)


def parse_version(text: str) -> int:
    """The major version in what `systemctl --version` prints, such as 260 of "systemd 260~rc2"; 0 for none."""
    found = re.match(r"systemd\s+v?(\d+)", text)
    return int(found[1]) if found else 0


def missing_protections(version: int) -> list[str]:
    """What the units lack because this systemd does not know it; nothing for an unknown version (0)."""
    return [what for since, what in PROTECTIONS.items() if 0 < version < since]


def socket_proxyd() -> Path | None:
    """systemd's own socket relay, or None where this machine does not have it."""
    systemctl = shutil.which("systemctl")
    trees = [Path(systemctl).resolve().parents[1] / "lib/systemd"] if systemctl else []
    names = [directory / "systemd-socket-proxyd" for directory in (*_LIBRARIES, *trees)]
    found = next((path for path in names if path.is_file()), None)
    on_path = shutil.which("systemd-socket-proxyd")
    return found or (Path(on_path) if on_path else None)


@dataclass(frozen=True)
class Unit:
    """What systemd says of a unit: its properties as text, "" for those it does not know."""

    name: str
    properties: dict[str, str]

    def __getattr__(self, name: str) -> str:
        return self.properties.get("".join(word.capitalize() for word in name.split("_")), "")

    @property
    def loaded(self) -> bool:
        return self.properties.get("LoadState") == "loaded"

    @property
    def active(self) -> bool:
        return self.properties.get("ActiveState") in ("active", "reloading", "activating")

    @property
    def main_pid(self) -> int:
        return int(self.properties.get("MainPID") or 0)

    @property
    def restarts(self) -> int:
        return int(self.properties.get("NRestarts") or 0)


class Systemd:
    """The manager of one scope."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._flags = ["--user"] if scope == "user" else []

    def _run(
        self, program: str, *arguments: str, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *self._flags, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )

    def _do(self, *arguments: str, timeout: float = 60) -> None:
        try:
            result = self._run("systemctl", *arguments, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise ToolError(
                f"systemctl {' '.join(arguments)}", f"no end after {timeout:g} s"
            ) from None
        if result.returncode:
            raise ToolError(
                f"systemctl {' '.join(arguments)}", (result.stderr or result.stdout).strip()[-1000:]
            )

    def available(self) -> bool:
        """Whether this manager runs here."""
        if self.scope == "system":
            # sd_booted(3); /run/systemd itself is in every image that has the package
            return RUNTIME["system"].is_dir() and self.version() > 0
        try:
            return self._run("systemctl", "show", "--property=Version", "--value").returncode == 0
        except OSError:
            return False

    def version(self) -> int:
        """systemd's version, 0 where it is not installed."""
        try:
            return parse_version(self._run("systemctl", "--version").stdout)
        except OSError:
            return 0

    def reload(self) -> None:
        self._do("daemon-reload")

    def enable(self, *units: str, runtime: bool = False) -> None:
        """Have units start at boot; with `runtime` only until the next one."""
        self._do("enable", "--quiet", *(["--runtime"] if runtime else []), *units)

    def disable(self, *units: str) -> None:
        self._do("disable", "--quiet", *units)

    def start(self, *units: str) -> None:
        """Start units; for Type=notify this returns when the service is ready."""
        self._do("start", *units, timeout=180)

    def begin_to_stop(self, *units: str) -> None:
        """Tell units to stop and do not wait for it."""
        self._do("stop", "--no-block", *units)

    def stop(self, *units: str, seconds: float = 60) -> None:
        """Stop units; `seconds` is how long they may drain."""
        self._do("stop", *units, timeout=seconds + 60)

    def restart(self, *units: str, seconds: float = 60) -> None:
        self._do("restart", *units, timeout=seconds + 180)

    def reset_failed(self, *units: str) -> None:
        self._run("systemctl", "reset-failed", *units)

    def clean(self, *units: str) -> None:
        """Remove what units keep below /run."""
        self._run("systemctl", "clean", "--what=runtime", *units)

    def show(self, unit: str) -> Unit:
        """A unit's properties; LoadState is not-found for one that does not exist."""
        return self.show_all(unit)[0]

    def show_all(self, *units: str) -> list[Unit]:
        """The properties of several units, asked in one go."""
        out = self._run("systemctl", "show", *units, f"--property={','.join(_PROPERTIES)}").stdout
        # a blank line between two units, in the order in which they were asked for
        parts = [*out.split("\n\n"), *([""] * len(units))]
        found = []
        for unit, part in zip(units, parts, strict=False):
            pairs = (line.partition("=") for line in part.splitlines())
            found.append(
                Unit(
                    unit,
                    {name: value for name, sign, value in pairs if sign and value != "[not set]"},
                )
            )
        return found

    def listening_sockets(self, port: int) -> list[str]:
        """The socket units that listen on this TCP port."""
        # a failed one is listed too, and listens on nothing
        options = ("--state=active", "--no-legend", "--no-pager", "--plain")
        lines = self._run("systemctl", "list-sockets", *options).stdout.splitlines()
        rows = [line.split() for line in lines]
        return [row[1] for row in rows if len(row) > 1 and row[0].endswith(f":{port}")]

    def environment(self) -> list[str]:
        """The names of the variables that the manager gives to everything it starts."""
        lines = self._run("systemctl", "show-environment").stdout.splitlines()
        return [
            name
            for name, sign, _ in (line.partition("=") for line in lines)
            if sign and name.isidentifier()
        ]

    def exposure(self, unit_file: Path) -> float | None:
        """The score of `systemd-analyze security`, 0 (sealed) to 10; None where it cannot tell."""
        result = self._run(
            "systemd-analyze", "security", "--offline=true", "--no-pager", str(unit_file)
        )
        for line in reversed(result.stdout.splitlines()):
            if "Overall exposure level" in line:
                return float(line.split(":")[1].split()[0])
        return None

    def verify(self, *unit_files: Path) -> str:
        """What `systemd-analyze verify` has to say; "" is good, its exit code alone tells little."""
        result = self._run("systemd-analyze", "verify", *map(str, unit_files))
        return (result.stdout + result.stderr).strip()

    def journal(self, unit: str, *options: str) -> list[dict[str, Any]]:
        """A unit's journal entries, oldest first: its own and the manager's about it."""
        result = self._run("journalctl", "--output=json", "--no-pager", f"--unit={unit}", *options)
        return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]

    def entries(self, unit: str, *options: str) -> Generator[dict[str, Any], None, None]:
        """The journal's entries of a unit as they are read, or with --follow as they come, until the caller stops asking.

        Raises:
            ToolError: journalctl takes an option otherwise than it was meant; its own words are on stderr.
        """
        command = [
            "journalctl",
            *self._flags,
            "--output=json",
            "--no-pager",
            f"--unit={unit}",
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
                    raise ToolError("journalctl", f"ended with code {process.returncode}")
            finally:
                process.terminate()
