"""Real processes for the tests: OptiLLM with and without the guard, on free loopback ports.

The programs under test run as a user who is not root (`nobody` when the tests do), in
directories that user can reach.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from uv import find_uv_bin

ROOT = Path(__file__).resolve().parent.parent
#: The keys of the tests: none is a secret.
PROXY_KEY = "optillm-test-key-0123456789abcdef"
UPSTREAM_KEY = "upstream-test-key"
STRATEGIES = ("moa", "bon", "plansearch", "self_consistency")
#: Every other strategy that runs with the answers of the stand-in.
OTHER_STRATEGIES = (
    "re2",
    "mcts",
    "rstar",
    "leap",
    "pvg",
    "cot_reflection",
    "rto",
    "majority_voting",
    "genselect",
    "deepthink",
    "cepo",
    "mars",
)
UNPRIVILEGED = 65534


#: Below the ports that the kernel gives to outgoing connections, which could take one before its
#: server starts; each process begins elsewhere, and gives none out twice.
_ports = itertools.islice(itertools.cycle(range(20000, 32000)), os.getpid() * 97 % 12000, None)


def free_port() -> int:
    """A loopback port that is free now."""
    for port in _ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("unreachable")


def wait_until(
    true: Callable[[], object], seconds: float = 10, what: str = "it", pause: float = 0.02
) -> None:
    """Look every `pause` seconds until `true()`; an AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(pause)


def assert_well_formed(prometheus: Path, exposition: str) -> None:
    """What Prometheus' own tool says of metrics: nothing."""
    words = [str(prometheus.with_name("promtool")), "check", "metrics"]
    ended = subprocess.run(
        words, input=exposition, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout + ended.stderr) == (0, "")


@contextmanager
def open_directory() -> Iterator[Path]:
    """A temporary directory that every user may enter; gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="optictl-test-", dir="/var/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def packaged() -> Iterator[Path]:
    """The `optictl` of this checkout's wheel, in a venv of the system's Python for every user."""
    uv = find_uv_bin()
    with open_directory() as directory:
        subprocess.run(
            [uv, "build", "-q", "--wheel", "--out-dir", str(directory / "dist"), str(ROOT)],
            check=True,
        )
        subprocess.run(
            [uv, "venv", "-q", "--python", "/usr/bin/python3", str(directory / "venv")], check=True
        )
        wheel = next((directory / "dist").glob("*.whl"))
        python = directory / "venv/bin/python"
        subprocess.run(
            [
                uv,
                "pip",
                "install",
                "-q",
                "--link-mode=copy",
                "--compile-bytecode",
                "--python",
                str(python),
                str(wheel),
            ],
            check=True,
        )
        yield directory / "venv/bin/optictl"


@dataclass
class Server:
    """A running OptiLLM. `log` is the file that holds its stdout and stderr."""

    url: str
    key: str
    process: subprocess.Popen[bytes]
    log: Path
    home: Path

    def journal(self) -> str:
        return self.log.read_text(errors="replace")

    def post(
        self, body: Any = None, *, key: str | None = "", timeout: float = 60, **options: Any
    ) -> httpx.Response:
        """POST /v1/chat/completions; `key=None` sends none, the default sends the right one."""
        headers = dict(options.pop("headers", {}))
        if key is not None:
            headers["Authorization"] = f"Bearer {key or self.key}"
        if body is not None:
            options["json"] = body
        # verify=False: loading the certificates would cost every plain-HTTP request 40 ms of CPU
        return httpx.post(
            f"{self.url}/chat/completions",
            headers=headers,
            timeout=timeout,
            verify=False,
            **options,
        )

    def ask(self, model: str, text: str = "What is 2 + 2?", **fields: Any) -> httpx.Response:
        return self.post(
            {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        )

    def get(self, path: str, key: str | None = "") -> httpx.Response:
        headers = {} if key is None else {"Authorization": f"Bearer {key or self.key}"}
        return httpx.get(
            self.url.removesuffix("/v1") + path, headers=headers, timeout=30, verify=False
        )


def proxy_config(base_url: str) -> str:
    """A proxy_config.yaml like the one that optictl renders."""
    return (
        f"providers:\n  - name: litellm\n    base_url: {base_url}\n"
        "    api_key: ${OPENAI_API_KEY}\n"
        "routing:\n  health_check:\n    enabled: false\nmonitoring:\n  track_errors: false\n"
        "timeouts:\n  request: 600\n"
    )


def guard_arguments(
    base_url: str,
    port: int,
    *,
    approach: str = "proxy",
    strategies: Sequence[str] = STRATEGIES,
    base_models: Sequence[str] = ("jerry-xl",),
    extra: Sequence[str] = (),
) -> list[str]:
    """The guard's flags; `@KEYFILE` is filled in by `start`."""
    return [
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--base-url",
        base_url,
        "--approach",
        approach,
        "--model",
        base_models[0],
        "--optillm-api-key",
        "@KEYFILE",
        "--strategies",
        ",".join(strategies),
        "--base-models",
        ",".join(base_models),
        *extra,
    ]


def prepare_home(directory: Path, config: str | None, key: str = PROXY_KEY) -> tuple[Path, Path]:
    """A HOME with (or without) a proxy_config.yaml, and the file that holds the proxy key."""
    home = directory / "home"
    (home / ".optillm").mkdir(parents=True)
    if config is not None:
        (home / ".optillm" / "proxy_config.yaml").write_text(config)
    key_file = directory / "proxy_key"
    key_file.write_text(key + "\n")
    for path in (home, home / ".optillm", key_file):
        path.chmod(0o644 if path.is_file() else 0o755)
    return home, key_file


def spawn(
    command: Sequence[str], environment: dict[str, str], cwd: Path, log: Path
) -> subprocess.Popen[bytes]:
    """Start a program that is not root, with exactly this environment, its output in `log`."""
    identity: dict[str, Any] = {}
    if os.getuid() == 0:
        identity = {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            env=environment,
            cwd=cwd,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            **identity,
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL after five seconds."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_ready(process: subprocess.Popen[bytes], port: int, log: Path, seconds: float = 60) -> None:
    """Until /health answers; a process that ends first is a failure that quotes its log."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(
                f"ended with {process.returncode}:\n{log.read_text(errors='replace')[-3000:]}"
            )
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=1, verify=False).status_code:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"not ready after {seconds} s:\n{log.read_text(errors='replace')[-3000:]}")


@contextmanager
def guarded(
    release: Path,
    base_url: str,
    *,
    config: str | None = "rendered",
    key: str = PROXY_KEY,
    environment: dict[str, str] | None = None,
    **flags: Any,
) -> Iterator[Server]:
    """The guarded OptiLLM of `release` (see the fixture) in front of `base_url`."""
    port = free_port()
    with open_directory() as directory:
        home, key_file = prepare_home(
            directory, proxy_config(base_url) if config == "rendered" else config, key
        )
        arguments = [
            a.replace("@KEYFILE", f"@{key_file}") for a in guard_arguments(base_url, port, **flags)
        ]
        command = [str(release / ".venv/bin/python"), "-I", str(release / "guard"), *arguments]
        variables = {"HOME": str(home), "OPENAI_API_KEY": UPSTREAM_KEY, **(environment or {})}
        log = directory / "log"
        process = spawn(command, variables, release / "work", log)
        try:
            wait_ready(process, port, log)
            yield Server(f"http://127.0.0.1:{port}/v1", key, process, log, home)
        finally:
            stop(process)


def run_guard(
    release: Path,
    base_url: str = "http://127.0.0.1:4000/v1",
    *,
    config: str | None = "rendered",
    key: str = PROXY_KEY,
    environment: dict[str, str] | None = None,
    arguments: list[str] | None = None,
    **flags: Any,
) -> tuple[int, str]:
    """Start a guard that is expected to refuse: its exit code and what it printed. At most 60 s."""
    with open_directory() as directory:
        home, key_file = prepare_home(
            directory, proxy_config(base_url) if config == "rendered" else config, key
        )
        given = (
            arguments if arguments is not None else guard_arguments(base_url, free_port(), **flags)
        )
        command = [str(release / ".venv/bin/python"), "-I", str(release / "guard")]
        command += [a.replace("@KEYFILE", f"@{key_file}") for a in given]
        variables = {"HOME": str(home), "OPENAI_API_KEY": UPSTREAM_KEY, **(environment or {})}
        log = directory / "log"
        process = spawn(command, {k: v for k, v in variables.items() if v}, release / "work", log)
        try:
            return process.wait(60), log.read_text(errors="replace")
        finally:
            stop(process)


@contextmanager
def bare(
    release: Path,
    base_url: str,
    *,
    arguments: Sequence[str] = (),
    config: str | None = "rendered",
    key: str = PROXY_KEY,
    environment: dict[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[Server]:
    """The same OptiLLM started by hand, without the guard, as its documentation says."""
    port = free_port()
    with open_directory() as directory:
        home, _ = prepare_home(
            directory, proxy_config(base_url) if config == "rendered" else config, key
        )
        command = [
            str(release / ".venv/bin/optillm"),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--base-url",
            base_url,
            "--model",
            "jerry-xl",
            "--optillm-api-key",
            key,
            *arguments,
        ]
        variables = {"HOME": str(home), "OPENAI_API_KEY": UPSTREAM_KEY, **(environment or {})}
        log = directory / "log"
        process = spawn(command, {k: v for k, v in variables.items() if v}, cwd or home, log)
        try:
            wait_ready(process, port, log)
            yield Server(f"http://127.0.0.1:{port}/v1", key, process, log, home)
        finally:
            stop(process)
