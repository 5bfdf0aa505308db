"""`optictl top` in a terminal and in a pipe, with a guard that reports what a test sets."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from optictl.proof.standin import Reply, Seen, StandIn
from testing.support import PROXY_KEY
from tests.integration.cli.helpers import (
    ESCAPE,
    OPTICTL,
    Outcome,
    attached,
    configured,
    environment,
    optictl,
)

STATE = {
    "uptime": 61.5,
    "ready": True,
    "strategies": ["moa", "bon"],
    "waiting": 2,
    "max_in_flight": 64,
    "in_flight": [
        {
            "trace": "feedface" * 4,
            "strategy": "moa",
            "base_model": "jerry-xl",
            "age": 75,
            "upstream_calls": 3,
            "upstream_open": 2,
        },
    ],
}


@pytest.fixture
def guard() -> Iterator[StandIn]:
    """Counts one request, two calls and 100 tokens more at every look."""
    looks = 0

    def respond(seen: Seen) -> Reply | None:
        nonlocal looks
        if seen.headers.get("authorization") != f"Bearer {PROXY_KEY}":
            return Reply(401, {"error": {"message": "the proxy key is missing or wrong"}})
        if seen.path == "/guard/state":
            return Reply(body=STATE)
        if seen.path == "/metrics":
            looks += 1
            labels = 'strategy="moa",base_model="jerry-xl"'
            return Reply(
                body=(
                    f'optillm_requests_total{{{labels},status="2xx"}} {looks}\n'
                    f'optillm_upstream_calls_total{{{labels},status="2xx"}} {2 * looks}\n'
                    f'optillm_upstream_tokens_total{{{labels},kind="prompt"}} {100 * looks}\n'
                    f'optillm_upstream_call_duration_seconds_bucket{{{labels},le="1.0"}} '
                    f"{2 * looks}\n"
                    f'optillm_upstream_call_duration_seconds_bucket{{{labels},le="+Inf"}} '
                    f"{2 * looks}\n"
                    "process_resident_memory_bytes 1.048576e+08\n"
                ).encode()
            )
        return None

    with StandIn(respond=respond).running() as standin:
        yield standin


@pytest.fixture
def root(guard: StandIn, tmp_path: Path) -> Path:
    return attached(tmp_path / "root", guard.base_url, "http://127.0.0.1:9/v1")


@dataclass
class Terminal:
    """A terminal of 24 lines of 80, with optictl in it."""

    process: subprocess.Popen[bytes]
    ours: int
    theirs: int
    shown: str = ""

    def until(self, words: str, seconds: float = 60) -> str:
        """What was shown up to the moment when these words were, since the last time."""
        return self._read(lambda: words in ESCAPE.sub("", self.shown), seconds, words)

    def ends(self) -> tuple[int, str]:
        """Its exit code, and what it showed since the last time."""
        deadline = time.monotonic() + 60
        # a terminal that is not read takes no more after a while, and the program could not end
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.ours], [], [], 0.1)[0]:
                self.shown += os.read(self.ours, 65536).decode(errors="replace")
        return self.process.wait(0), self._read(lambda: True, 60, "its end")

    def _read(self, done: Callable[[], bool], seconds: float, what: str) -> str:
        deadline = time.monotonic() + seconds
        while (readable := select.select([self.ours], [], [], 0.1)[0]) or not done():
            assert time.monotonic() < deadline, f"waited for {what}:\n{self.shown}"
            assert readable or self.process.poll() is None, f"ended before {what}:\n{self.shown}"
            if readable:
                self.shown += os.read(self.ours, 65536).decode(errors="replace")
        seen, self.shown = self.shown, ""
        return seen

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    @property
    def modes(self) -> list[object]:
        return termios.tcgetattr(self.theirs)


def _restore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def terminal(
    *arguments: str | Path, home: Path, variables: dict[str, str] | None = None
) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [OPTICTL, "top", *arguments],
        env=environment(home, {"TERM": "xterm-256color", **(variables or {})}),
        cwd=home,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        # a shell may ignore them for what it starts in the background
        preexec_fn=_restore_signals,
    )
    try:
        yield Terminal(process, ours, theirs)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


def assert_put_back(shown: str) -> None:
    """The cursor is there again, and so is what stood on the screen before."""
    assert shown.rindex("\x1b[?1049l") > shown.rfind("\x1b[?1049h")
    assert shown.rindex("\x1b[?25h") > shown.rfind("\x1b[?25l")


class TestTerminal:
    def test_the_screen_and_its_keys(self, root: Path, guard: StandIn, tmp_path: Path) -> None:
        with terminal("--root", root, "--interval", "0.2", home=tmp_path) as screen:
            before = screen.modes
            text = ESCAPE.sub("", screen.until("q quits"))
            for words in (
                "optillm-proxy  running, ready  up 1 min 1 s",
                "memory 100 MiB",
                "1 of 64 run, 2 wait,",
                "moa-jerry-xl",
                "1 min 15 s",
                "feedface",
            ):
                assert words in text
            assert "\x1b" not in text
            rates = ESCAPE.sub("", screen.until("rates over 1 s"))
            assert re.search(r"moa +1 +[1-9][\d.]+ +0\.0 +[1-9]", rates)
            assert screen.modes != before
            screen.type("p")
            screen.until("paused")
            time.sleep(0.5)
            looks = len(guard.seen)
            time.sleep(1)
            assert len(guard.seen) == looks
            screen.type("?")
            assert "estimate" in ESCAPE.sub("", screen.until("buckets of a histogram"))
            screen.type("?")
            screen.until("p continues")
            screen.type("p")
            screen.until("p pauses")
            screen.type("q")
            assert screen.ends()[0] == 0
            assert screen.modes == before
            assert len(guard.seen) > looks

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_puts_the_terminal_back(
        self, number: signal.Signals, root: Path, tmp_path: Path
    ) -> None:
        with terminal("--root", root, "--interval", "0.2", home=tmp_path) as screen:
            before = screen.modes
            shown = screen.until("q quits")
            screen.process.send_signal(number)
            code, rest = screen.ends()
            assert_put_back(shown + rest)
            assert code == 128 + number
            assert screen.modes == before

    def test_a_defect_puts_the_terminal_back(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "sitecustomize.py").write_text(
            "import optictl.observe.top.model as model\nreal, seen = model.screen, []\n"
            "def broken(*a):\n    seen.append(1)\n"
            "    if len(seen) > 2: raise RuntimeError('injected')\n    return real(*a)\n"
            "model.screen = broken\n"
        )
        variables = {"PYTHONPATH": str(tmp_path)}
        with terminal(
            "--root", root, "--interval", "0.2", home=tmp_path, variables=variables
        ) as screen:
            before = screen.modes
            assert_put_back(screen.until("injected"))
            assert screen.ends()[0] == 1
            assert screen.modes == before


class TestPipe:
    def test_a_line_a_look(self, root: Path, tmp_path: Path) -> None:
        outcome = optictl("top", "--root", root, "--interval", "0.2", "--count", "3", home=tmp_path)
        assert (outcome.code, outcome.err) == (0, "")
        first, *others = outcome.out.splitlines()
        assert len(others) == 2
        assert " state=running ready=yes uptime_s=62 in_flight=1 queued=2 requests/min=- " in first
        assert all(float(re.findall(r"requests/min=([\d.]+)", line)[0]) > 0 for line in others)
        assert "\x1b" not in outcome.out

    def test_an_object_a_line(self, root: Path, tmp_path: Path) -> None:
        outcome = optictl(
            "top", "--root", root, "--interval", "0.2", "--count", "2", "-o", "json", home=tmp_path
        )
        first, second = map(json.loads, outcome.out.splitlines())
        assert (first["schema"], first["ready"], first["total"]["requests"]) == (1, True, None)
        total = second["total"]
        assert total["calls"] == pytest.approx(2 * total["requests"], rel=0.01)
        assert total["tokens"] == pytest.approx(100 * total["requests"], rel=0.01)
        assert (second["p50"], second["memory"], second["in_flight"][0]["waiting"]) == (
            0.5,
            104857600,
            2,
        )
        assert PROXY_KEY not in outcome.out + outcome.err

    def ends(self, root: Path, home: Path) -> Outcome:
        return optictl("top", "--root", root, "--count", "1", home=home)

    def test_what_does_not_answer_is_told(self, root: Path, guard: StandIn, tmp_path: Path) -> None:
        told = {
            401: "the proxy key is missing or wrong",
            404: "the active release does not report its state: it is older than this optictl",
        }
        for status, words in told.items():
            guard.respond = lambda _, status=status: Reply(
                status, {"error": {"message": told[status]}}
            )  # type: ignore[misc]
            outcome = self.ends(root, tmp_path)
            assert outcome.code == 1
            assert "ready=no" in outcome.out
            assert words in outcome.out
        guard.respond = lambda _: Reply(body=b"<html>")
        assert "a program without the guard" in self.ends(root, tmp_path).out

    def test_nobody_there(self, tmp_path: Path) -> None:
        root = configured(tmp_path / "other")
        (root / "etc/optillm-proxy/proxy_key").write_text(f"{PROXY_KEY}\n")
        outcome = self.ends(root, tmp_path)
        assert outcome.code == 1
        assert "refused" in outcome.out

    def test_without_a_key(self, root: Path, tmp_path: Path) -> None:
        (root / "etc/optillm-proxy/proxy_key").unlink()
        outcome = self.ends(root, tmp_path)
        assert outcome.code == 1
        assert "optictl init" in outcome.err
