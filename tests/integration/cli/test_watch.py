"""check --watch: what a person, a pipe and a program see of it, and how it ends."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.integration.cli.helpers import (
    ESCAPE,
    OPTICTL,
    SECONDS,
    assert_envelope,
    configured,
    environment,
    fits,
    in_terminal,
    optictl,
)

#: What is judged in a moment, and can be broken and mended by a file.
ONLY = ("--only", "key.strength", "--only", "config.valid")
STRONG = "optillm-0123456789abcdef0123456789abcdef\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = configured(tmp_path / "root")
    key = root / "etc/optillm-proxy/proxy_key"
    key.write_text(STRONG)
    key.chmod(0o600)
    return root


class Pipe:
    """A `check --watch 1` whose stdout is a pipe."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process, self.text = process, ""

    def until(self, words: str) -> str:
        """Read on until these words are there; what came since the last time."""
        assert self.process.stdout is not None
        deadline, begin = time.monotonic() + SECONDS, len(self.text)
        while words not in self.text[begin:] or not self.text.endswith("\n"):
            assert time.monotonic() < deadline, self.text
            if select.select([self.process.stdout], [], [], 0.5)[0]:
                read = os.read(self.process.stdout.fileno(), 65536)
                assert read, self.text
                self.text += read.decode()
        return self.text[begin:]

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(SECONDS)


def _hears_ctrl_c() -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # tests in the background are deaf to it, and so would be what they start


@contextmanager
def watching(root: Path, home: Path, *arguments: str | Path) -> Iterator[Pipe]:
    command = [OPTICTL, "check", "--root", root, "--watch", "1", *ONLY, *arguments]
    with subprocess.Popen(
        command,
        env=environment(home),
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        preexec_fn=_hears_ctrl_c,
    ) as process:
        try:
            yield Pipe(process)
        finally:
            with suppress(ProcessLookupError):
                process.kill()


def test_a_pipe_is_told_what_changed_and_every_round_is_in_the_textfile(
    root: Path, tmp_path: Path
) -> None:
    key, metrics = root / "etc/optillm-proxy/proxy_key", tmp_path / "optillm.prom"
    with watching(root, tmp_path, "--textfile", metrics) as pipe:
        first = pipe.until("(2 pass)")
        assert [line.split()[:2] for line in first.splitlines()[:2]] == [
            ["pass", "config.valid"],
            ["pass", "key.strength"],
        ]
        key.write_text("weak\n")
        broken = pipe.until("Fix: ")
        assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d fail  key\.strength: ", broken, re.M)
        assert "config.valid" not in broken
        assert 'optillm_check_healthy{deployment="optillm-proxy"} 0\n' in metrics.read_text()
        key.write_text(STRONG)
        well = pipe.until("All good").splitlines()
        assert [line.split()[2:4] for line in well] == [["pass", "key.strength:"], ["pass", "All"]]
        assert 'optillm_check_healthy{deployment="optillm-proxy"} 1\n' in metrics.read_text()
        # a round that cannot do its work is told, and the next one goes on
        metrics.unlink()
        metrics.mkdir()
        assert " error " in pipe.until("optillm.prom")
        metrics.rmdir()
        assert pipe.until("All good").count("\n") == 1
        assert "\x1b" not in pipe.text
        assert pipe.interrupt() == 0


def test_a_program_gets_an_envelope_a_line(root: Path, tmp_path: Path) -> None:
    key = root / "etc/optillm-proxy/proxy_key"
    with watching(root, tmp_path, "--output", "json") as pipe:
        (line,) = pipe.until("\n").splitlines()
        assert [r["id"] for r in assert_envelope(json.loads(line), "check", "ok")] == [
            "config.valid",
            "key.strength",
        ]
        time.sleep(1.5)  # a round in which nothing changed has no line
        key.write_text("weak\n")
        (line,) = pipe.until("\n").splitlines()
        data = json.loads(line)
        assert [r["id"] for r in assert_envelope(data, "check", "failed")] == ["key.strength"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", data["time"])
        assert "Fix: " in data["summary"]
        assert pipe.interrupt() == 1  # the last round was not good


@pytest.mark.parametrize("colour", [True, False])
def test_a_terminal(colour: bool, root: Path, tmp_path: Path) -> None:
    """At 80 columns no line is cut or wider, NO_COLOR is obeyed, and Ctrl-C ends it silently."""
    missing = tmp_path / "no such directory" / "optillm.prom"
    outcome = in_terminal(
        "check",
        "--root",
        root,
        "--watch",
        "1",
        *ONLY,
        "--textfile",
        missing,
        home=tmp_path,
        columns=80,
        typed="\x03",
        prompt="optillm.prom",
        variables={} if colour else {"NO_COLOR": "1"},
    )
    assert outcome.code == 1
    assert [line for line in outcome.lines if not fits(line, 80)] == []
    assert "Traceback" not in outcome.out
    signs = [match.group(0) for match in ESCAPE.finditer(outcome.out)]
    codes = {int(code) for sign in signs if sign.endswith("m") for code in re.findall(r"\d+", sign)}
    assert bool([code for code in codes if 30 <= code <= 48 or 90 <= code <= 107]) is colour


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--watch", "0"], "must be at least 1"),
        (["--watch", "nan"], "must be a whole number"),
        (["--watch", "5", "--output", "nagios"], "text or json"),
        (["--watch", "5", "--attack"], "without --attack"),
    ],
)
def test_what_makes_no_sense(arguments: list[str], words: str, tmp_path: Path) -> None:
    outcome = optictl("check", *arguments, home=tmp_path)
    assert (outcome.code, outcome.out) == (2, "")
    assert words in " ".join(outcome.err.replace("│", " ").split())
