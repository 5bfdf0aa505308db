"""A hand-made OptiLLM service on a booted machine: running and in use, before optictl comes."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path

import httpx

from optictl.proof.standin import StandIn
from testing.machine import Machine
from testing.support import UPSTREAM_KEY, free_port, wait_until

#: Its key: strong enough to be kept.
HAND_KEY = "kept-by-hand-0123456789-abcdef"
USER = "handy"
HOME = f"/home/{USER}"
UNITS = "/etc/systemd/system"
ENV = "/etc/optillm-proxy/env"
_UNIT = """\
[Unit]
Description=OptiLLM Proxy (optillm-proxy)
After=network.target

[Service]
Type=simple
User={user}
WorkingDirectory={home}/optillm-proxy
EnvironmentFile={env}
ExecStart={home}/optillm-proxy/.venv/bin/optillm {flags}
Restart=always
RestartSec=2
LimitNOFILE=65536
{service}
[Install]
WantedBy=multi-user.target
"""


@dataclass
class HandMadeService:
    """A running hand-made service."""

    machine: Machine
    port: int
    key: str
    name: str = "optillm-proxy"

    @property
    def unit(self) -> str:
        return f"{self.name}.service"

    @property
    def path(self) -> str:
        return f"{UNITS}/{self.unit}"

    @property
    def text(self) -> str:
        """The unit as it was written."""
        return self.machine.read(self.path)

    def healthy(self) -> bool:
        """Whether it answers /health."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def ask(self, model: str = "bon-jerry-xl", timeout: float = 60) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        return httpx.post(url, json=body, headers=headers, timeout=timeout)

    def remove(self) -> None:
        """Stop it and take its files away; the user stays."""
        self.machine.run("systemctl", "disable", "--now", self.unit, check=False)
        self.machine.run("rm", "-rf", self.path, f"{self.path}.d", f"{HOME}/.optillm")
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "reset-failed", self.unit, check=False)


def start_handmade(
    machine: Machine,
    upstream: StandIn,
    venv: Path,
    *,
    port: int | None = None,
    key: str = HAND_KEY,
    env: str = f"OPENAI_API_KEY={UPSTREAM_KEY}\n",
    env_mode: int = 0o600,
    env_path: str = ENV,
    drop_in: str = "",
    service: str = "",
    flags: str = "",
    providers: str | None = None,
    name: str = "optillm-proxy",
    wait: bool = True,
) -> HandMadeService:
    """Write the unit of the specification by hand, enable it, start it, and wait until it answers.

    `upstream`: the stand-in for LiteLLM, running. `venv`: with a real OptiLLM (the fixture
    `locked_venv`). `key`: "" for none. `env`: the text of its env file. `drop_in`: the text of
    NAME.service.d/override.conf. `service`: more lines of [Service]. `flags`: more of OptiLLM's.
    `providers`: the text of its user's proxy_config.yaml.
    """
    made = HandMadeService(machine, port or free_port(), key, name)
    if machine.run("id", USER, check=False).returncode:
        machine.run("useradd", "--create-home", "--home-dir", HOME, "--shell", "/bin/bash", USER)
    machine.run(
        "mkdir", "-p", f"{HOME}/optillm-proxy", f"{HOME}/.optillm", str(Path(env_path).parent)
    )
    machine.run("ln", "-sfn", str(venv), f"{HOME}/optillm-proxy/.venv")
    default = (
        f"providers:\n  - name: litellm\n    base_url: {upstream.base_url}\n    api_key: dummy\n"
    )
    machine.write(f"{HOME}/.optillm/proxy_config.yaml", default if providers is None else providers)
    machine.run("chown", "-R", "-h", f"{USER}:", HOME)
    machine.write(env_path, env, env_mode)
    words = (
        f"--host 127.0.0.1 --port {made.port} --base-url {upstream.base_url} --approach proxy "
        "--model jerry-xl"
    )
    words += f" --optillm-api-key {key}" if key else ""
    text = _UNIT.format(
        user=USER, home=HOME, env=env_path, flags=f"{words} {flags}".strip(), service=service
    )
    machine.write(made.path, text)
    if drop_in:
        machine.run("mkdir", "-p", f"{made.path}.d")
        machine.write(f"{made.path}.d/override.conf", textwrap.dedent(drop_in))
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "enable", "--now", "--quiet", made.unit)
    if wait:
        wait_until(made.healthy, 60, f"{made.unit} answers", pause=0.2)
    return made
