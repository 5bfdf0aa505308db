"""Command lines that lead nowhere, in circles, or are no command lines at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optictl.takeover import command

SCRIPTS = {
    "/itself.sh": "#!/bin/sh\n/itself.sh\nsh /itself.sh; exec $0\n",
    "/a.sh": "#!/bin/bash\n/b.sh\n",
    "/b.sh": "#!/bin/bash\n/a.sh || /x/optillm --port 7\n",
    "/program": "\x7fELF",
    "/python.py": "#!/usr/bin/python3\nimport optillm\n",
}


def started(*words: str, **environment: str) -> command.Started:
    return command.started(words, environment, "", SCRIPTS.get)


@pytest.mark.parametrize(
    "words",
    [
        ("/itself.sh",),
        ("/program",),
        ("/python.py",),
        ("/missing.sh",),
        ("env",),
        ("env", "-u"),
        ("uv",),
        ("uv", "run"),
        ("uv", "pip", "install", "optillm"),
        ("sh",),
        ("sh", "-c"),
        ("python",),
        ("python", "-m"),
        ("python", "-c", "optillm"),
        ("nice", "-n"),
        ("timeout", "5"),
        ("sh", "-c", "echo optillm"),
        ("sh", "-c", "# optillm"),
        ("pip", "optillm"),
        ("nohup", *["nohup"] * 40, "optillm"),
    ],
)
def test_no_optillm(words: tuple[str, ...]) -> None:
    assert not started(*words).is_optillm


def test_two_scripts_that_start_each_other() -> None:
    assert started("/a.sh").arguments == ("--port", "7")


def test_what_a_wrapper_sets_is_known_with_its_place() -> None:
    found = started("env", "-i", "A=1", "-u", "B", "sh", "-c", "C=3 D=$A optillm", B="2")
    assert dict(found.environment) == {"A": "1", "C": "3", "D": "1"}
    assert found.places == {"A": "env in ExecStart=", "C": "a shell", "D": "a shell"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optillm '$A' \"$A\" $A", ("$A", "1  2", "1", "2")),
        ('optillm ${N:-d} ${N-e} ${A:+y} "${N}" $N', ("d", "e", "y", "")),
        ("optillm a\\ b 'c'\"d\"e >/log 2>&1 </dev/null &", ("a b", "cde")),
        ('optillm ~/x "~" a~', ("/h/x", "~", "a~")),
        ("optillm `pass x` $(a $(b) c)d", (command.UNKNOWN, f"{command.UNKNOWN}d")),
        ("true && optillm --a \\\n  --b # c", ("--a", "--b")),
        ('optillm "a\\"b\\$c\\d"', ('a"b$c\\d',)),
        ("optillm 'open", ("open",)),
    ],
)
def test_a_shells_words(text: str, words: tuple[str, ...]) -> None:
    assert started("sh", "-c", text, A="1  2", HOME="/h").arguments == words


@given(
    st.text(st.sampled_from("a$`'\"\\ ;&|<>(){}~#=-\n1@")),
    st.lists(st.sampled_from(["sh", "-c", "env", "uv", "run", "A=1"])),
)
def test_any_text_ends(text: str, before: list[str]) -> None:
    assert started(*before, "sh", "-c", text).words is not None
    command.flags(started("optillm", *text.split()).arguments)
