"""The walk: what the quick start tells an operator to type, on a system without optictl.

The user types what README and the quick start print, in a login shell, at a terminal. The upstream
that stands for LiteLLM, and the load during a restart, run on this machine: a booted system shares
its network.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from optictl.proof.standin import StandIn
from testing import documented
from testing.kept import kept
from testing.load import CLIENTS, Load, Tally, slow_upstream
from testing.machine import Machine, overlay, powered
from testing.support import ROOT, UPSTREAM_KEY, free_port, wait_until
from testing.systems import reach

USER, UID = "ada", 1000
HOME = Path("/home", USER)
CHECKOUT = HOME / "optictl"
OPTICTL = "/usr/local/bin/optictl"
ETC = "/etc/optillm-proxy"
UNIT, CHECK = "optillm-proxy.service", "optillm-proxy-check.service"
#: How the outcome of a step begins that was not taken.
NOT_RUN = "not run"
#: Further interpreters of this machine, if it has any: `3.12/bin/python3.12` and the like.
INTERPRETERS = Path("/opt/python")
#: A step that takes longer has failed; seconds.
LONGEST = 900.0
#: Runs its arguments at a new terminal and ends as they end. (`script` spins with a pipe.)
_TERMINAL = "import os, pty, sys; sys.exit(os.WEXITSTATUS(pty.spawn(sys.argv[1:])))"
#: What the operator changes in a file that `init` wrote, instead of an editor's keys.
_EDITOR = "/usr/local/bin/fill-in"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\r|\^D\x08\x08")


class StepFailed(Exception):
    """A step of the walk did not do what it must; says what was typed and what came."""


@dataclass(frozen=True)
class Pythons:
    """The interpreters of a walk: for optictl and for releases. None: the tools choose one."""

    optictl: Path | None = None
    release: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """One step of a walk. `problem` is "" when it passed."""

    step: str
    seconds: float
    problem: str = ""


@dataclass
class Learnt:
    """What a walk learnt of a system: the Pythons that optictl and the release really run on."""

    optictl: str = ""
    release: str = ""


def outside(*command: str) -> str:
    """What a command on this machine says; "" when it fails or there is none."""
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.stdout.strip()


@dataclass
class Walk:
    """A booted system with one ordinary user who may use sudo, and the upstream.

    `builds`: also the second deployment and the user's build their releases; otherwise they get
    a copy of the first one's.
    """

    system: str
    machine: Machine
    upstream: StandIn
    pythons: Pythons
    builds: bool
    port: int = field(default_factory=free_port)
    second: int = field(default_factory=free_port)
    own: int = field(default_factory=free_port)
    learnt: Learnt = field(default_factory=Learnt)
    secrets: set[str] = field(default_factory=lambda: {UPSTREAM_KEY})

    def systemd(self) -> str:
        """Its version, such as `257.9-1~deb13u1`."""
        return self.machine.run("systemctl", "--version").stdout.partition("(")[2].partition(")")[0]

    def kernel(self) -> str:
        return self.machine.run("uname", "-r").stdout.strip()

    def version(self, python: str) -> str:
        """The version of an interpreter in the machine; "" when it does not run there."""
        ask = "import platform; print(platform.python_version())"
        return self.machine.run(python, "-I", "-c", ask, check=False).stdout.strip()

    def unfit(self) -> str:
        """Why this walk cannot begin: the Python that it asks for does not run on this system."""
        python = self.pythons.optictl
        return (
            ""
            if python is None or self.version(str(python))
            else f"{python} of this machine does not run there"
        )

    def type(self, line: str, timeout: float = LONGEST) -> str:
        """Type a line as the user, in the checkout, at a terminal; answer every question with y.

        Returns what the terminal shows, without keys. `timeout` is in seconds.

        Raises:
            StepFailed: it ended with another exit code than 0, or not in time.
        """
        variables = {"TERM": "dumb", "SUDO_EDITOR": _EDITOR, "LANG": "C.UTF-8", **reach.variables()}
        login = [
            "systemd-run",
            "--quiet",
            "--pipe",
            "--wait",
            "--collect",
            "--property=PAMName=login",
            f"--uid={USER}",
            f"--property=RuntimeMaxSec={timeout:.0f}",
            *(f"--setenv={name}={value}" for name, value in variables.items()),
            "python3",
            "-c",
            _TERMINAL,
            "bash",
            "--login",
            "-c",
            f"cd {CHECKOUT} && {line}",
        ]
        process = subprocess.Popen(
            self.machine.inside(*login),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
        )
        try:
            said = _answered(process, timeout)
        finally:
            process.kill()
        text = self.hide(_ESCAPES.sub("", said))
        if process.returncode:
            raise StepFailed(f"$ {line}\nended with {process.returncode}:\n{text[-3000:]}")
        return text

    def see(self, line: str, *words: str, timeout: float = LONGEST) -> str:
        """Type a line, and require these words in what the terminal shows, across line breaks."""
        said = self.type(line, timeout)
        flat = " ".join(said.split())
        if missing := [word for word in words if word not in flat]:
            raise StepFailed(f"$ {line}\ndid not say {missing}:\n{said[-3000:]}")
        return said

    def hide(self, text: str) -> str:
        """The text without the keys of this walk."""
        # a purge removes them from the machine, and its output may still name one
        files = "cat /etc/*/proxy_key /home/*/.config/*/proxy_key 2>/dev/null || true"
        self.secrets |= {
            key for key in self.machine.run("sh", "-c", files).stdout.split() if len(key) > 8
        }
        for secret in self.secrets:
            text = text.replace(secret, "(a key)")
        return text

    def key(self, path: str = "/etc/optillm-proxy/proxy_key") -> str:
        return self.machine.read(path).strip()

    def configure(self, port: int) -> None:
        """What the operator's editor changes in the files that `init` wrote."""
        port_line, base_line = (
            f"s|^  port: 4020|  port: {port}|",
            f"s|http://127.0.0.1:4000/v1|{self.upstream.base_url}|",
        )
        # sudoedit gives the editor a copy with another name
        script = (
            "#!/bin/sh\n"
            'case "$1" in\n'
            f"*.yaml) sed -i -e '{port_line}' -e '{base_line}' \"$1\" ;;\n"
            f"*) echo 'OPENAI_API_KEY={UPSTREAM_KEY}' >\"$1\" ;;\n"
            "esac\n"
        )
        self.machine.write(_EDITOR, script, 0o755)

    def lend(self, releases: str, owner: str) -> None:
        """Where further deployments build nothing: a copy of the first one's release."""
        if not self.builds:
            copied = (
                f"mkdir -p {releases} && cp -a $(readlink -f /opt/optillm-proxy/current) {releases}"
            )
            self.machine.run("sh", "-c", f"{copied} && chown -R {owner}: {releases}")
            if owner != "root":
                self.machine.run(
                    "sh",
                    "-c",
                    f"chown {owner}: {HOME}/.local {HOME}/.local/share {HOME}/.local/share/*",
                )

    def gone(self, *paths: str) -> None:
        for path in paths:
            self.must(
                self.machine.run("test", "-e", path, check=False).returncode == 1,
                f"{path} is still there",
            )

    def must(self, true: bool, words: str) -> None:
        if not true:
            raise StepFailed(self.hide(words))

    def healthy(self, port: int) -> bool:
        with suppress(httpx.TransportError):
            return (
                httpx.get(f"http://127.0.0.1:{port}/health", timeout=30, verify=False).status_code
                == 200
            )
        return False


def _answered(process: subprocess.Popen[bytes], timeout: float) -> str:
    """What a process says while its questions are answered; its input stays open until it ends."""
    assert process.stdin is not None
    assert process.stdout is not None
    deadline = time.monotonic() + timeout
    said = b""
    os.set_blocking(process.stdout.fileno(), False)
    answered = 0
    while True:
        with suppress(BlockingIOError):
            said += process.stdout.read() or b""
        if process.poll() is not None:
            return (said + (process.stdout.read() or b"")).decode(errors="replace")
        while said.count(b"[y/N]") > answered:
            answered += 1
            with suppress(BrokenPipeError):
                process.stdin.write(b"y\n")
                process.stdin.flush()
        if time.monotonic() > deadline:
            raise StepFailed(
                f"not over after {timeout:.0f} s:\n{said.decode(errors='replace')[-2000:]}"
            )
        time.sleep(0.05)


def printed(pattern: str) -> str:
    """The one command of README and the quick start that matches a regular expression.

    Both pages may print it, in the same words.
    """
    lines = (line for page in documented.WALKED for line in documented.commands(ROOT / page))
    fitting = [line for line in dict.fromkeys(lines) if re.fullmatch(pattern, line)]
    assert len(fitting) == 1, f"{documented.WALKED}: {pattern} fits {fitting}"
    return fitting[0]


def _optictl(words: str) -> str:
    return printed(rf"sudo {OPTICTL} {words}")


def _on(python: Path | None) -> str:
    return f" --python {python}" if python else ""


def demo(walk: Walk) -> None:
    """Without root, systemd and LiteLLM, from nothing but Python and pip."""
    line = printed("python3 -m pip install .* optictl demo --once")
    walk.see(line.replace(" run ", f" run{_on(walk.pythons.optictl)} "), "stand-in")


def tool(walk: Walk) -> None:
    """optictl for the whole machine, out of the checkout."""
    line = printed(r"sudo env UV_TOOL_DIR=.*/uv tool install \.")
    walk.type(line + _on(walk.pythons.optictl))
    walk.see("optictl --help", "Usage: optictl")
    walk.learnt.optictl = walk.version("/opt/uv-tools/optictl/bin/python")


def init(walk: Walk) -> None:
    """The configuration, its ports, and the key of LiteLLM."""
    walk.see(_optictl("init"), "optictl.yaml", "proxy_key")
    walk.configure(walk.port)
    walk.type(printed(f"sudoedit {ETC}/optictl.yaml"))
    walk.type(printed(f"sudoedit {ETC}/env"))


def install(walk: Walk) -> None:
    """The plan, the release, the units, the checks and one real request."""
    walk.see(_optictl("install") + _on(walk.pythons.release), "Apply these changes?")
    walk.must(walk.healthy(walk.port), "the port does not answer")
    walk.learnt.release = walk.version("/opt/optillm-proxy/current/.venv/bin/python")
    walk.see(_optictl("install") + _on(walk.pythons.release), "No changes.")


def render(walk: Walk) -> None:
    """The entries for LiteLLM's configuration."""
    line = printed(r"optictl render litellm > \S+")
    written = line.rpartition(" ")[2]
    walk.see(f"{line} && cat {written} && rm {written}", "moa-jerry-xl")


def check(walk: Walk) -> None:
    """Every invariant holds."""
    walk.type(f"sudo {OPTICTL} check")


def attack(walk: Walk) -> None:
    """The sandbox holds."""
    walk.see(_optictl("check --attack"), "sandbox.")


def smoke(walk: Walk) -> None:
    """A real request that is proven to have run its strategy."""
    walk.see(_optictl("smoke moa-jerry-xl"), "moa-jerry-xl")


def status(walk: Walk) -> None:
    """One screen."""
    walk.see(_optictl("status"), "active (running)", "serving")


def _lossless(walk: Walk, tallies: Sequence[tuple[str, Tally]], lost: int = 0) -> None:
    """Fail if more than `lost` requests were dropped, or if any was refused or got an error."""
    for name, tally in tallies:
        bad = (tally.count("refused"), tally.count("dropped"), tally.others)
        walk.must(tally.count("ok") > 0, f"{name}: no request was answered; others: {bad}")
        walk.must(
            bad[0] == 0 and bad[1] <= lost and not bad[2],
            f"{name}: refused, dropped, not 200: {bad}",
        )


@contextmanager
def _load(walk: Walk, lost: int = 0) -> Iterator[None]:
    """Short requests and strategies during the block; the upstream is as slow as a model."""
    walk.upstream.respond = slow_upstream
    try:
        with Load(walk.port, walk.key(), "moa-jerry-xl").running() as load:
            time.sleep(2)
            yield
            time.sleep(2)
    finally:
        walk.upstream.respond = None
    _lossless(walk, (("/health", load.gets), ("moa", load.strategies)), lost)


def restart(walk: Walk) -> None:
    """Under load: nothing is refused or dropped."""
    before = walk.machine.show(UNIT, "MainPID")
    with _load(walk):
        walk.type(_optictl("restart"))
    walk.must(walk.machine.show(UNIT, "MainPID") != before, "the process is the same as before")


def kill(walk: Walk) -> None:
    """`kill -9` under load: only requests in flight are lost, and systemd restarts the service."""
    before = walk.machine.show(UNIT, "MainPID")
    with _load(walk, lost=CLIENTS + 1):
        walk.type(f"sudo sh -c 'kill -9 {before}'")
        wait_until(
            lambda: walk.machine.show(UNIT, "MainPID") not in ("0", before),
            60,
            "another process",
            0.2,
        )
        walk.must(walk.healthy(walk.port), "the port does not answer")
    walk.see(f"sudo {OPTICTL} check")


def timer(walk: Walk) -> None:
    """The check of every minute: installed, and one round passes."""
    walk.type(f"sudo sed -i 's/^  timer: false/  timer: true/' {ETC}/optictl.yaml")
    walk.type(_optictl("install"))
    begun = walk.machine.show(CHECK, "ExecMainStartTimestampMonotonic")
    wait_until(
        lambda: walk.machine.show(CHECK, "ExecMainStartTimestampMonotonic") != begun,
        150,
        "a round",
        0.5,
    )
    wait_until(
        lambda: walk.machine.show(CHECK, "ActiveState") not in ("active", "activating"),
        90,
        "its end",
        0.5,
    )
    said = walk.machine.run("journalctl", "-q", "-o", "cat", "-u", CHECK).stdout
    walk.must(walk.machine.show(CHECK, "Result") == "success", f"the round failed:\n{said[-2000:]}")
    # a single failed round does not fail the unit
    walk.must("does not know" not in said, f"the unit does not reach systemd:\n{said[-2000:]}")


def upgrade(walk: Walk) -> None:
    """To the next OptiLLM, proven before the switch."""
    walk.see(_optictl(r"upgrade \S+") + _on(walk.pythons.release), "Apply these changes?")
    walk.see(f"sudo {OPTICTL} releases", "0.3.13")
    walk.type(f"sudo {OPTICTL} check")


def rollback(walk: Walk) -> None:
    """Return to the previous release."""
    before = walk.machine.run("readlink", "/opt/optillm-proxy/current").stdout
    walk.type(_optictl("rollback"))
    walk.must(
        walk.machine.run("readlink", "/opt/optillm-proxy/current").stdout != before,
        "the release is the same",
    )
    walk.type(f"sudo {OPTICTL} smoke moa-jerry-xl")


def two(walk: Walk) -> None:
    """A second deployment beside the first, on another port, and its removal."""
    named = "--name second"
    walk.type(f"sudo {OPTICTL} init {named}")
    walk.configure(walk.second)
    walk.type("sudoedit /etc/second/optictl.yaml && sudoedit /etc/second/env")
    walk.lend("/opt/second/releases", "root")
    walk.type(f"sudo {OPTICTL} install {named}{_on(walk.pythons.release)}")
    walk.must(walk.healthy(walk.port) and walk.healthy(walk.second), "not both of them answer")
    walk.type(
        f"sudo {OPTICTL} check {named} && sudo {OPTICTL} smoke moa-jerry-xl {named} && "
        f"sudo {OPTICTL} check"
    )
    walk.type(f"sudo {OPTICTL} uninstall --purge {named}")
    walk.must(
        walk.healthy(walk.port) and not walk.healthy(walk.second),
        "the wrong one of the two is gone",
    )
    walk.gone("/etc/second", "/opt/second", "/var/lib/second", "/etc/systemd/system/second.service")


def user(walk: Walk) -> None:
    """A deployment of the user, under the user's systemd."""
    etc = f"{HOME}/.config/optillm-proxy"
    walk.type(f"sudo loginctl enable-linger {USER}")
    walk.type("optictl init --user")
    walk.configure(walk.own)
    walk.type(f"{_EDITOR} {etc}/optictl.yaml && {_EDITOR} {etc}/env")
    walk.lend(f"{HOME}/.local/share/optillm-proxy/releases", USER)
    walk.type(f"optictl install --user{_on(walk.pythons.release)}")
    walk.must(walk.healthy(walk.own), "the port does not answer")
    walk.type("optictl check --user && optictl smoke moa-jerry-xl --user && optictl restart --user")
    walk.must(walk.healthy(walk.own), "after the restart, the port does not answer")
    walk.type("optictl uninstall --purge --user")
    walk.gone(
        etc,
        f"{HOME}/.local/share/optillm-proxy",
        f"{HOME}/.config/systemd/user/optillm-proxy.service",
    )


def uninstall(walk: Walk) -> None:
    """Nothing is left."""
    walk.type(f"{_optictl('uninstall')} --purge")
    walk.must(not walk.healthy(walk.port), "the port still answers")
    walk.gone(ETC, "/opt/optillm-proxy", "/var/lib/optillm-proxy")
    left = walk.machine.run(
        "systemctl", "list-unit-files", "--no-legend", "optillm-proxy*", check=False
    ).stdout
    walk.must(not left.strip(), f"units are left:\n{left}")


@dataclass(frozen=True)
class Step:
    """One step. `needs`: the steps without which it says nothing."""

    act: Callable[[Walk], None]
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.act.__name__

    @property
    def says(self) -> str:
        """What it does, in a sentence."""
        return (self.act.__doc__ or "").strip()


#: In the order of the quick start.
STEPS = (
    Step(demo),
    Step(tool, ("demo",)),
    Step(init, ("tool",)),
    Step(install, ("init",)),
    Step(render, ("init",)),
    Step(check, ("install",)),
    Step(attack, ("install",)),
    Step(smoke, ("install",)),
    Step(status, ("install",)),
    Step(restart, ("install",)),
    Step(kill, ("install",)),
    Step(timer, ("install",)),
    Step(upgrade, ("install",)),
    Step(rollback, ("upgrade",)),
    Step(two, ("install",)),
    Step(user, ("install",)),
    Step(uninstall, ("install",)),
)


def take(walk: Walk, steps: Sequence[Step] = STEPS) -> Iterator[Outcome]:
    """Take the steps in their order. A failure stops only the steps that need the failed one."""
    failed: set[str] = set()
    for step in steps:
        begun = time.monotonic()
        problem = ""
        if unmet := [name for name in step.needs if name in failed]:
            problem = f"{NOT_RUN}: needs {', '.join(unmet)}"
        else:
            try:
                step.act(walk)
            except (StepFailed, AssertionError) as error:
                problem = f"{walk.system}: {step.name}: {walk.hide(str(error))}"
        if problem:
            failed.add(step.name)
        yield Outcome(step.name, time.monotonic() - begun, problem)


def _ignored(_directory: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(".") or name in ("__pycache__", "benchmarks")]


def _furnish(root: Path) -> list[str]:
    """Give a root the user, the checkout and the way to the index; returns nspawn's options."""
    home = root / HOME.relative_to("/")
    subprocess.run(
        [
            "useradd",
            "--root",
            root,
            "--create-home",
            "--uid",
            str(UID),
            "--shell",
            "/bin/bash",
            USER,
        ],
        check=True,
        capture_output=True,
    )
    (root / "etc/hostname").write_text("gate\n")  # debootstrap writes this machine's
    (root / "etc/hosts").write_text("127.0.0.1 localhost gate\n")
    rule = root / "etc/sudoers.d" / USER
    kept_variables = " ".join(reach.variables())
    rule.write_text(
        f'{USER} ALL=(ALL) NOPASSWD: ALL\nDefaults env_keep += "{kept_variables} SUDO_EDITOR"\n'
    )
    rule.chmod(0o440)
    shutil.copytree(ROOT, home / "optictl", ignore=_ignored)
    shown = reach.prepare(root, {HOME: UID, Path("/root"): 0})
    if INTERPRETERS.is_dir():
        shown.append(f"--bind-ro={INTERPRETERS}")
    for place, owner in ((HOME / ".cache/uv", UID), (Path("/root/.cache/uv"), 0)):
        inside = root / place.relative_to("/")
        inside.mkdir(parents=True)
        for made in (inside, inside.parent):
            os.chown(made, owner, owner)
        cache = kept(f"uv-cache-{owner}", lambda directory: (directory / "cache").mkdir()) / "cache"
        os.chown(cache, owner, owner)
        shown.append(f"--bind={cache}:{place}")
    return shown


@contextmanager
def begun(
    system: str, tree: Path, pythons: Pythons = Pythons(), *, builds: bool = True
) -> Iterator[Walk]:
    """A booted system, ready for the first step; powered off when the block ends."""
    with overlay(lower=tree) as place:
        options = _furnish(place / "root")
        with powered(place, *options) as machine, StandIn(key=UPSTREAM_KEY).running() as upstream:
            yield Walk(system, machine, upstream, pythons, builds)
