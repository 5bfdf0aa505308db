"""How the tests run optictl: the installed console script, without this machine's settings."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testing.support import PROXY_KEY, UPSTREAM_KEY, free_port

OPTICTL = Path(sys.executable).parent / "optictl"
#: Colours, cursor movements and window titles.
ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])")
SECONDS = 60
#: The fields of `data` in a result of `optictl smoke`. Scripts rely on them.
SMOKE_DATA = {
    "strategy",
    "base_model",
    "upstream_calls",
    "upstream_models",
    "upstream_failures",
    "latency_ms",
    "tokens",
    "answer",
    "effect",
    "codes",
    "fixed",
    "samples",
    "ratings",
    "agreement",
    "evidence",
}


@dataclass(frozen=True)
class Outcome:
    """How a command ended. In a terminal `out` holds both streams, as they appeared."""

    code: int
    out: str
    err: str = ""

    @property
    def data(self) -> Any:
        """stdout as JSON; that it is JSON and nothing else is asserted."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        """What a terminal showed, line by line, without colours."""
        return re.split(r"[\r\n]+", ESCAPE.sub("", self.out))


def environment(home: Path, variables: Mapping[str, str] | None = None) -> dict[str, str]:
    return {
        "PATH": f"{OPTICTL.parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        **(variables or {}),
    }


def optictl(
    *arguments: str | Path,
    home: Path,
    variables: Mapping[str, str] | None = None,
    program: Path | None = None,
    **options: Any,
) -> Outcome:
    """Run optictl with pipes and no terminal; `home` is its HOME and its working directory."""
    done = subprocess.run(
        [program or OPTICTL, *arguments],
        env=environment(home, variables),
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        **options,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def together(calls: Mapping[str, Callable[[], Outcome]]) -> dict[str, Outcome]:
    """Several independent runs at the same time: most of a test's time is Python starting."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(calls, pool.map(lambda call: call(), calls.values()), strict=True))


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # Ctrl-C must reach it
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # tests in the background are deaf to it, and so would be what they start


def in_terminal(
    *arguments: str | Path,
    home: Path,
    columns: int,
    typed: str = "",
    prompt: str = "",
    variables: Mapping[str, str] | None = None,
    seconds: float = SECONDS,
) -> Outcome:
    """Run optictl in a terminal of that width, and type something when `prompt` is on it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [OPTICTL, *arguments],
        env=environment(home, {"TERM": "xterm-256color", **(variables or {})}),
        cwd=home,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_own_terminal,
    )
    os.close(theirs)
    shown, deadline, again = b"", time.monotonic() + seconds, 0.0
    try:
        with suppress(OSError):  # the end of a terminal is an error
            while time.monotonic() < deadline:
                if select.select([ours], [], [], 0.5)[0]:
                    shown += os.read(ours, 65536)
                if typed and prompt.encode() in shown and time.monotonic() > again:
                    # again and again: a Ctrl-C just before Python begins to read is lost in Python;
                    # not soon: a second one would kill what is about to end
                    os.write(ours, typed.encode())
                    again = time.monotonic() + 5
        return Outcome(process.wait(5), shown.decode())
    finally:
        process.kill()
        os.close(ours)


def without_privileges() -> None:
    """Before a program starts: root drops the right to ignore file modes, so that they count."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            if libc.prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
                raise OSError(ctypes.get_errno(), "prctl")


def tree(directory: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """path below the directory -> mode, inode, time of change, content: equal if all unchanged."""
    found = {}
    for path in sorted(directory.rglob("*")):
        info = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path.relative_to(directory))] = (
            info.st_mode,
            info.st_ino,
            info.st_mtime_ns,
            content,
        )
    return found


def configured(root: Path, text: str = "") -> Path:
    """A root whose optictl.yaml names a port without a server (or is `text`); the root itself."""
    path = root / "etc/optillm-proxy/optictl.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(
        text
        or f"listen: {{port: {free_port()}}}\n"
        f"upstream: {{base_url: 'http://127.0.0.1:{free_port()}/v1'}}\n"
    )
    return root


def attached(root: Path, proxy: str, upstream: str) -> Path:
    """A root configured, with keys, for a proxy and an upstream at these URLs; the root itself."""
    port = proxy.removesuffix("/v1").rpartition(":")[2]
    configured(root, f"listen: {{port: {port}}}\nupstream: {{base_url: '{upstream}'}}\n")
    (root / "etc/optillm-proxy/env").write_text(f"OPENAI_API_KEY={UPSTREAM_KEY}\n")
    (root / "etc/optillm-proxy/proxy_key").write_text(f"{PROXY_KEY}\n")
    return root


def fits(line: str, columns: int) -> bool:
    """Whether a line fits a terminal. A command to copy is not wrapped; a path is never split."""
    is_command = re.match(r"(fix|next|continue:|\s+fix:?)\s", line.lower()) is not None
    longest = max(map(len, line.split()), default=0)
    return is_command or len(line) <= max(columns, longest + columns // 2)


def assert_envelope(data: Any, command: str, status: str) -> Sequence[dict[str, Any]]:
    """The versioned envelope of DESIGN section 6; its results."""
    assert {name: data[name] for name in ("schema", "command", "status")} == {
        "schema": 1,
        "command": command,
        "status": status,
    }
    assert isinstance(data["results"], list)
    return data["results"]  # type: ignore[no-any-return]
