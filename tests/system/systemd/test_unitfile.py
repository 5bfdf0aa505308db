"""Unit files as optictl reads them and as systemd runs them: the same words, the same variables."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from optictl.takeover import unitfile
from optictl.takeover.unitfile import Unreadable
from testing.machine import Machine

pytestmark = [pytest.mark.slow, pytest.mark.root]

#: Says what it was started with. Variables of systemd's own are of no account.
TELL = """#!/usr/bin/python3
import json, os, sys
with open("/run/told/" + sys.argv[1], "a") as out:
    variables = {name: value for name, value in os.environ.items() if name in "ABCD"}
    out.write(json.dumps([sys.argv[2:], variables]) + "\\n")
"""
#: What lines are made of; a value is a random row of these.
PIECES = (
    "a",
    "bc",
    "--flag",
    "--flag=x",
    " ",
    "  ",
    "\t",
    "'",
    '"',
    "''",
    '""',
    "'a b'",
    '"c  d"',
    "\\\\",
    "\\n",
    "\\t",
    "\\s",
    "\\x41",
    "\\101",
    "\\u00e9",
    "\\U0001f600",
    "\\d",
    "\\400",
    "\\x4",
    '\\"',
    "\\'",
    "$A",
    "${A}",
    " $A ",
    " ${B} ",
    "$B",
    " $B ",
    "$$",
    " $$A ",
    "${",
    "$",
    " $C ",
    "${C}",
    "%%",
    "%n",
    "%N",
    "%p",
    "%i",
    "%h",
    "%u",
    "%t",
    "%S",
    "%E",
    ";",
    " ; /bin/true ",
    " \\; ",
    "#",
    " # ",
    "é",
    "\\\n",
    " \\\n  # comment\n ",
    " \\\n ; comment\n",
    "=",
    "[",
    "]",
    "@",
    "-",
)
EXAMPLES = 400
LOCAL = "[Service]\nEnvironment=D=dropped\n"


def _lines(source: random.Random) -> str:
    return "".join(source.choices(PIECES, k=source.randint(1, 9))).removesuffix("\\\n")


def _unit(name: str, source: random.Random) -> str:
    program = source.choice(["", "-", ":", "+", "-:"]) + "/opt/tell"
    return (
        "[Unit]\nDescription=x\n[Service]\nType=oneshot\nEnvironment=A=1 'B=2  3' \"C='4 5' 6\"\n"
        f"Environment={_lines(source)}\nExecStart={program} {name} {_lines(source)}\n"
    )


def _expected(name: str, text: str) -> list[list[object]] | None:
    """What TELL is to write; None where systemd refuses the unit."""
    settings = unitfile.settings((name, text), ("local.conf", LOCAL))
    stem = name.removesuffix(".service")
    table = {
        "n": name,
        "N": stem,
        "p": stem,
        "i": "",
        "h": "/root",
        "u": "root",
        "t": "/run",
        "S": "/var/lib",
        "E": "/etc",
    }
    environment, _, _ = unitfile.assigned(settings.all("Environment"), table)
    told = {key: value for key, value in environment.items() if key in "ABCD"}
    try:
        lines = [
            line
            for entry in settings.all("ExecStart")
            for line in unitfile.exec_lines(entry, table)
        ]
    except Unreadable:
        return None
    # a continuation may have swallowed the command
    started = [unitfile.expanded(line, environment) for line in lines]
    return [[list(words[2:]), told] for words in started if words[0] == "/opt/tell"] or None


def test_the_same_words_and_variables(machine: Machine) -> None:
    source = random.Random(13)
    machine.run("mkdir", "-p", "/run/told", "/run/systemd/system")
    machine.write("/opt/tell", TELL, 0o755)
    units = {f"tell-{n}.service": _unit(f"tell-{n}.service", source) for n in range(EXAMPLES)}
    place = Path("/run/systemd/system")
    for name, text in units.items():
        (machine.root / "var/tmp" / name).write_text(text)
    machine.run("sh", "-c", f"mv /var/tmp/tell-*.service {place}")
    for name in units:
        machine.run("mkdir", "-p", f"{place}/{name}.d")
    machine.write(f"{place}/local.conf", LOCAL)
    machine.run(
        "sh",
        "-c",
        f"for d in {place}/tell-*.d; do cp {place}/local.conf $d/; done; systemctl daemon-reload",
    )
    machine.run("systemctl", "start", *units, check=False)
    seen = json.loads(
        machine.run(
            "/usr/bin/python3",
            "-c",
            "import json, pathlib\n"
            "told = pathlib.Path('/run/told').iterdir()\n"
            "print(json.dumps({p.name: [json.loads(l) for l in p.read_text().splitlines()] "
            "for p in told}))",
        ).stdout
    )
    wrong = {
        name: (text, expected, seen.get(name))
        for name, text in units.items()
        if (expected := _expected(name, text)) != seen.get(name)
    }
    refused = sum(_expected(name, text) is None for name, text in units.items())
    assert 10 < refused < EXAMPLES / 2
    assert (
        "\n".join(
            f"{unit.split('local')[0][90:]}\n{own}\n{real}" for unit, own, real in wrong.values()
        )
        == ""
    )
