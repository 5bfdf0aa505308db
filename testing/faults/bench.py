"""Where the faults are made: a booted machine, one deployment, a real LiteLLM on both sides of it.

LiteLLM "moa-jerry-xl" -> OptiLLM -> a relay that can be told to misbehave -> LiteLLM "jerry-xl" ->
a stand-in
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import yaml

from optictl.deployment import config_yaml, paths, render
from optictl.proof.standin import Reply, Seen, StandIn
from optictl.results import Result, roots
from testing import litellm_proxy
from testing.host import ETC, Host
from testing.machine import booted
from testing.support import PROXY_KEY, free_port

UNIT, SOCKET, RELAY = (
    "optillm-proxy.service",
    "optillm-proxy.socket",
    "optillm-proxy-upstream.socket",
)
UNITS = "/etc/systemd/system"
OPT, HOME = "/opt/optillm-proxy", "/var/lib/optillm-proxy"
LITELLM = "/etc/litellm"
#: Where the healthy deployment is kept, for when a remedy did not mend.
_KEPT = "/var/tmp/kept"
_SMALL = " ".join(place.lstrip("/") for place in (ETC, LITELLM, OPT, HOME, UNITS))
#: Has imported optictl. For every line that it gets, it runs `optictl check` in a fork and prints
#: the place of the output.
_CHECKS = """
import os, sys, tempfile
import optictl.cli, optictl.operations.examination, optictl.output.check_results
import optictl.facts.deployment, optictl.litellm.judge
import httpx, jinja2, yaml
optictl.checks.catalog.all_checks()
sys.argv = ["optictl", "check", "--output", "json"]
for _ in sys.stdin:
    handle, path = tempfile.mkstemp()
    if (child := os.fork()) == 0:
        os.dup2(handle, 1), os.close(0)
        try:
            optictl.cli.main()
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.close(handle)
    os.waitpid(child, 0)
    print(path, flush=True)
"""
#: Seconds after which who asks a service gives up.
PATIENCE = 6


class Upstream:
    """LiteLLM as OptiLLM sees it: the real one behind a relay that `misbehave` may answer for.

    `misbehave(seen)` gives a Reply, or None to pass the request on.
    """

    def __init__(self, litellm_port: int) -> None:
        self.port = free_port()
        self.misbehave: Callable[[Seen], Reply | None] | None = None
        #: Seconds that its clock is ahead.
        self.skew = 0.0
        self._litellm = httpx.Client(base_url=f"http://127.0.0.1:{litellm_port}", timeout=30)
        self._stack = ExitStack()

    @property
    def base_url(self) -> str:
        return litellm_proxy.base_url(self.port)

    def start(self) -> None:
        self._stack.enter_context(_Relay(self).running())

    def stop(self) -> None:
        self._stack.close()

    def respond(self, seen: Seen) -> Reply:
        if self.misbehave is not None and (reply := self.misbehave(seen)) is not None:
            return reply
        headers = {"Authorization": seen.headers.get("authorization", "")}
        answer = self._litellm.request(seen.method, seen.path, json=seen.body, headers=headers)
        kind = answer.headers.get("content-type", "application/json")
        return Reply(answer.status_code, answer.content, content_type=kind)


class _Relay(StandIn):
    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        super().__init__(port=upstream.port, respond=upstream.respond)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        upstream = self._upstream

        class Handler(super()._handler()):  # type: ignore[misc]
            def date_time_string(self, timestamp: float | None = None) -> str:
                return str(super().date_time_string((timestamp or time.time()) + upstream.skew))

        return Handler


@dataclass(frozen=True)
class Look:
    """What `check` says of a deployment, and which probes without optictl see a fault (True)."""

    results: list[Result]
    seconds: float = 0.0
    others: dict[str, bool] = field(default_factory=dict)

    @property
    def roots(self) -> list[Result]:
        return roots(self.results)

    @property
    def complaints(self) -> dict[str, tuple[str, str]]:
        return {r.id: (r.status, r.found) for r in self.results if r.status not in ("pass", "skip")}


@dataclass
class Bench(Host):
    """A deployment that can be broken, checked, fixed and restored."""

    upstream: Upstream  # type: ignore[assignment]
    litellm_port: int = 0
    model_url: str = ""
    other_port: int = field(default_factory=free_port)
    #: Connections that clients hold, and processes of others.
    held: list[socket.socket] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    checks: subprocess.Popen[str] | None = None

    def check(self) -> str:
        """`optictl check --output json`, without the time of its imports: there are hundreds."""
        if self.checks is None:
            python = self.program.parent / "python"
            self.checks = subprocess.Popen(
                self.machine.inside(python, "-c", _CHECKS),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd="/",
            )
        assert self.checks.stdin is not None
        assert self.checks.stdout is not None
        self.checks.stdin.write("\n")
        self.checks.stdin.flush()
        path = self.checks.stdout.readline().strip()
        return self.sh(f"cat {path}; rm {path}")

    def close(self) -> None:
        """End what was started on the machine beside the deployment."""
        self.let_go()
        if self.checks is not None:
            self.checks.communicate()  # it ends with its input

    def sh(self, words: str, check: bool = True) -> str:
        """A line of shell on the machine, as root."""
        return self.machine.run("sh", "-c", words, check=check).stdout

    def typed(self, remedy: str) -> None:
        """Type what was printed, as the operator does."""
        self.machine.run(
            "env",
            "OPTICTL_YES=1",
            f"PATH={self.program.parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "sh",
            "-c",
            remedy,
        )

    @property
    def configuration(self) -> str:
        return (
            f"listen: {{port: {self.port}}}\nupstream: {{base_url: '{self.upstream.base_url}'}}\n"
            "timeouts: {request: 60, drain: 5}\n"
            f"litellm: {{config: {LITELLM}/litellm.yaml, env: {LITELLM}/litellm.env}}\n"
        )

    def configure(self, extra: str = "", drain: int = 5) -> None:
        """The operator's files, and LiteLLM's, as they should be."""
        self.sh(f"mkdir -p {ETC} {LITELLM}")
        self.machine.write(f"{ETC}/optictl.yaml", self.configuration + extra)
        self.machine.write(f"{ETC}/env", f"OPENAI_API_KEY={litellm_proxy.MASTER_KEY}\n", 0o600)
        self.machine.write(f"{ETC}/proxy_key", f"{PROXY_KEY}\n", 0o600)
        self.machine.write(f"{LITELLM}/litellm.yaml", yaml.safe_dump(self.litellm_configuration))
        self.machine.write(
            f"{LITELLM}/litellm.env", f"{render.LITELLM_KEY_VARIABLE}={PROXY_KEY}\n", 0o600
        )

    @property
    def litellm_configuration(self) -> dict[str, Any]:
        """What `render litellm` prints, and a real model."""
        deployed = config_yaml.parse(self.configuration, "optictl.yaml")
        strategies = yaml.safe_load(render.litellm(deployed, paths.system()))["model_list"]
        for entry in strategies:
            entry["model_info"] = {"health_check_timeout": PATIENCE - 1}
        return litellm_proxy.configuration(
            [*strategies, litellm_proxy.model_entry("jerry-xl", self.model_url)]
        )

    @property
    def worker(self) -> str:
        """The process that serves, as the machine counts."""
        return self.sh(f"pgrep -P $(systemctl show {UNIT} -p MainPID --value)").split()[0]

    @property
    def memory(self) -> int:
        """KiB that the service's processes have for themselves."""
        pids = (self.machine.show(UNIT, "MainPID"), self.worker)
        text = "".join(self.machine.read(f"/proc/{pid}/status") for pid in pids)
        return sum(map(int, re.findall(r"^(?:RssAnon|RssShmem|VmSwap):\s+(\d+)", text, re.M)))

    def stranger(self, code: str, *arguments: str) -> None:
        """A process of another user, which prints its number when it is ready."""
        process = self.machine.spawn("python3", "-c", code, *arguments)
        assert process.stdout is not None
        self.strangers.append(process.stdout.readline().strip())

    def tell_litellm(self) -> None:
        """LiteLLM's environment gets the proxy key that is there now."""
        self.sh(
            f"echo {render.LITELLM_KEY_VARIABLE}=$(cat {ETC}/proxy_key) > {LITELLM}/litellm.env"
        )

    def let_go(self) -> None:
        """Close what clients hold."""
        while self.held:
            self.held.pop().close()

    def look(self, whole: bool = True) -> Look:
        """What `check` finds, and (`whole`) what the others do, at the same time."""
        with ThreadPoolExecutor() as pool:
            asked = {name: pool.submit(ask) for name, ask in self.others.items()} if whole else {}
            started = time.monotonic()
            said = self.check()
            seconds = time.monotonic() - started
            others = {name: future.result() for name, future in asked.items()}
        fields = Result.__dataclass_fields__
        try:
            results = [
                Result(**{k: v for k, v in r.items() if k in fields})
                for r in json.loads(said)["results"]
            ]
        except ValueError:
            raise AssertionError(f"check said {said!r}") from None
        return Look(results, seconds, others)

    @property
    def others(self) -> dict[str, Callable[[], bool]]:
        """The usual probes of a service; each says whether it sees that something is wrong."""
        return {
            "systemctl is-active": lambda: (
                self.machine.run("systemctl", "is-active", UNIT, check=False).returncode != 0
            ),
            "curl /health": lambda: not _get(f"{self.url}/health"),
            "curl /v1/models": lambda: not _get(f"{self.url}/v1/models", PROXY_KEY),
            "LiteLLM /health": lambda: not self._litellm_is_healthy(),
        }

    def _litellm_is_healthy(self) -> bool:
        url = f"http://127.0.0.1:{self.litellm_port}/health?model=moa-jerry-xl"
        answer = _get(url, litellm_proxy.MASTER_KEY)
        return answer is not None and answer.json().get("unhealthy_count") == 0

    def keep(self) -> None:
        """Remember the deployment as it is."""
        self.sh(
            f"mkdir -p {_KEPT} && tar -C / -cf {_KEPT}/small.tar --exclude=releases {_SMALL} && "
            f"cp -a {OPT}/releases {_KEPT}"
        )

    def restore(self) -> None:
        """The deployment as it was kept, running."""
        self.let_go()
        while self.strangers:
            self.sh(f"kill {self.strangers.pop()}", check=False)
        self.upstream.misbehave, self.upstream.skew = None, 0
        self.upstream.stop()
        self.upstream.start()
        self.sh(
            (
                f"systemctl stop {SOCKET} {UNIT} stranger; systemctl reset-failed; "
                f"umount --lazy {HOME} /var/log/journal/*"
            ),
            check=False,
        )
        self.sh(f"rm -rf {OPT}/releases && cp -a {_KEPT}/releases {OPT}")
        self.sh(
            f"rm -rf {ETC} {LITELLM} {HOME} {UNITS}/optillm* /run/systemd/system/optillm* && "
            f"tar -C / -xf {_KEPT}/small.tar"
            f" && systemctl daemon-reload && systemctl start {RELAY} {SOCKET} {UNIT}"
        )


def _get(url: str, key: str = "") -> httpx.Response | None:
    """The answer, where it is 200 and in time."""
    try:
        answer = httpx.get(
            url, headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=PATIENCE
        )
    except httpx.HTTPError:
        return None
    return answer if answer.status_code == 200 else None


@contextmanager
def running(program: Path, litellm_program: Path) -> Iterator[Bench]:
    """A healthy deployment, running."""
    port, litellm_port = free_port(), free_port()
    upstream = Upstream(litellm_port)
    with ExitStack() as stack:
        model = stack.enter_context(StandIn(models=("jerry-xl",)).running())
        upstream.start()
        stack.callback(upstream.stop)
        machine = stack.enter_context(booted())
        bench = Bench(machine, program, port, upstream, litellm_port, model.base_url)
        stack.callback(bench.close)
        bench.configure()
        key = {render.LITELLM_KEY_VARIABLE: PROXY_KEY}
        stack.enter_context(
            litellm_proxy.litellm(litellm_program, bench.litellm_configuration, litellm_port, key)
        )
        bench.optictl("install", "--yes")
        bench.keep()
        yield bench
