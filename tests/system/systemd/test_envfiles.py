"""The reader of env files against systemd: generated files, a unit for each, one booted machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from optictl.guard import envfile
from testing.machine import Machine
from testing.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.root]

COUNT = 400
PLACE = "/run/envfiles"
#: %i is the number of a file; what the unit's program got is beside it.
UNIT = f"""\
[Unit]
StartLimitIntervalSec=0
[Service]
Type=oneshot
RemainAfterExit=yes
EnvironmentFile={PLACE}/%i
ExecStart=/usr/bin/env -0
StandardOutput=file:{PLACE}/%i.out
"""

NAMES = ["A", "B_2", "_c", "OPENAI_API_KEY", "HTTP_PROXY", "OPTILLM_N"]
#: What the file's syntax turns on, and what people have by accident.
SIGNS = [
    *(
        "=",
        '"',
        "'",
        "\\",
        "\n",
        "\r",
        "\r\n",
        " ",
        "\t",
        "#",
        ";",
        "$",
        "`",
        "a",
        "B",
        "1",
        "-",
        "export ",
        "\ufeff",
        "\v",
        "\f",
    ),
    *(
        "\x01",
        "\x1f",
        "\x7f",
        "\x85",
        "\u2028",
        "\u00e9",
        "\U0001f600",
        "\ufdd0",
        "\ufffe",
        "\U0001ffff",
        "\\\n",
        "\\\r\n",
        '""',
    ),
]
PIECES = [*(sign.encode() for sign in SIGNS), *(f"{name}=".encode() for name in NAMES)]
#: Not UTF-8: Latin-1, a surrogate, an overlong form, beyond Unicode, a cut sequence; and NUL.
BROKEN = [b"\xe9", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xff", b"\0"]

values = st.lists(st.sampled_from(PIECES), max_size=6).map(b"".join)
ends = st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"\n\n", b"\r"])
lines = st.one_of(
    st.tuples(
        st.sampled_from([b"", b"", b" ", b"export "]),
        st.sampled_from(NAMES),
        st.sampled_from([b"=", b" = "]),
        values,
    ).map(lambda parts: parts[0] + parts[1].encode() + parts[2] + parts[3]),
    st.tuples(st.sampled_from([b"#", b"; ", b"# \\"]), values).map(b"".join),
    values,
)
whole = st.lists(st.tuples(lines, ends).map(b"".join), max_size=6).map(b"".join)
cut = st.tuples(whole, lines).map(b"".join)
broken = st.tuples(whole, st.sampled_from(BROKEN), whole).map(b"".join)
env_files = st.one_of(whole, cut, cut.map(lambda data: b"\xef\xbb\xbf" + data), broken)

#: What people really write, and what only one line of the reader is for.
WRITTEN = [
    b"",
    b"\n",
    b"A=1\nA=2\n",
    b"A=x\\\n  y \nB_2=\\\n",
    b"A='it''s' \"so\" plain # no comment\n",
    b'A="a\\"b\\\\c\\$d\\`e\\nf\\\ng"h\n',
    b"A=a b\\ \t \nB_2= \\  \n",
    b'A="not closed\nB_2=1\n',
    b"=1\n=A=1\nA==\n",
    b"# one \\\nA=1\nB_2=2\n",
    b"# one \\",
    b"A",
    b"A=\\",
    b'A="\\',
    b"1A=1\nA-B=1\nA B=1\n_c=ok\n",
    b"export OPENAI_API_KEY=k\r\nA=1\r\n",
    "\ufeffOPENAI_API_KEY=k\nA=1\n".encode(),
    "\ufeff# a comment\nA=1\n".encode(),
    "OPENAI_API_KEY=k\nA=1\n".encode("utf-16"),
    "OPENAI_API_KEY=k\nA=1\n".encode("utf-16-le"),
    "OPENAI_API_KEY=k\nA=1\n".encode("utf-16-be"),
    "# caf\u00e9\nA=1\n".encode("latin-1"),
    "A=caf\u00e9\nB_2=1\n".encode("latin-1"),
    "caf\u00e9=1\nB_2=1\n".encode("latin-1"),
    "caf\u00e9 without a sign\nB_2=1\n".encode("latin-1"),
    b"A=" + b"x" * (envfile.MAX_VARIABLE - 3) + b"\n",
    b"A=" + b"x" * (envfile.MAX_VARIABLE - 2) + b"\n",
]


def generated(count: int) -> list[bytes]:
    found: list[bytes] = []

    @settings(
        max_examples=count,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(env_files)
    def collect(data: bytes) -> None:
        found.append(data)

    collect()
    return found


def environments(machine: Machine, contents: list[bytes]) -> list[dict[str, str] | None]:
    """What systemd gives to a program for each of these files; None: the unit does not start."""
    place = Path(f"/proc/{machine.pid}/root{PLACE}")
    place.mkdir()
    for number, data in enumerate(contents):
        (place / str(number)).write_bytes(data)
    machine.write("/run/systemd/system/envfile@.service", UNIT)
    machine.run("systemctl", "daemon-reload")
    numbers = range(len(contents))
    machine.run(
        "sh",
        "-c",
        f"seq -f 'envfile@%.0f.service' 0 {numbers[-1]} | xargs systemctl start --no-block",
    )
    wait_until(lambda: not _waiting(machine), 90, "the units", pause=0.5)
    states = machine.run(
        "sh", "-c", "systemctl list-units --all --plain --no-legend 'envfile@*'"
    ).stdout.splitlines()
    state = {int(re.findall(r"@(\d+)", line)[0]): line.split()[2] for line in states}
    return [
        _variables(place / f"{number}.out") if state[number] == "active" else None
        for number in numbers
    ]


def _waiting(machine: Machine) -> str:
    return machine.run(
        "systemctl", "list-jobs", "--plain", "--no-legend", "envfile@*"
    ).stdout.strip()


def _variables(path: Path) -> dict[str, str]:
    pairs = path.read_bytes().decode().split("\0")[:-1]
    return dict(pair.partition("=")[::2] for pair in pairs)


@pytest.fixture
def systemd(machine: Machine) -> Iterator[int]:
    """The version of the machine's systemd; its units are gone afterwards."""
    version = machine.run("systemctl", "--version").stdout.split()[1]
    yield int(re.findall(r"\d+", version)[0])
    machine.run(
        "sh",
        "-c",
        (
            "systemctl stop 'envfile@*'; systemctl reset-failed; "
            f"rm -r {PLACE} /run/systemd/system/envfile@.service"
        ),
    )
    machine.run("systemctl", "daemon-reload")


def test_systemd_reads_every_file_the_same(machine: Machine, systemd: int) -> None:
    contents = [b"", *WRITTEN, *generated(COUNT)]
    got = environments(machine, contents)
    plain = got[0] or {}
    assert plain
    assert not {*NAMES, "a", "B"}.intersection(plain)
    wrong = []
    for data, variables in zip(contents, got, strict=True):
        ours = envfile.read(data, comments_continue=systemd < 254)
        own = (
            None
            if variables is None
            else {name: value for name, value in variables.items() if name not in plain}
        )
        if own != (None if ours.refused else ours.variables):
            wrong.append(f"{data!r}: systemd {own}, read as {ours.variables} with {ours.problems}")
    assert sorted(wrong, key=len) == []
    refused = got.count(None)
    assert refused > 20
    assert len(got) - refused > 100
