"""Parts of the walk: apt's sources, the settings of pip and uv, the table. No machine is booted."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing.systems import matrix, reach, walk
from testing.systems.trees import Source, sources

KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQ==\n-----END PGP PUBLIC KEY BLOCK-----"
DEB822 = f"""\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
# a comment within
Suites: stable stable-updates
Components: main contrib
Signed-By: /usr/share/keyrings/archive.gpg

Types: deb
URIs: http://mirror.example/security
Suites: stable-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: stable
Components: main

Types: deb
URIs: https://other.example/debian
Suites: stable
Components: main
Signed-By:
 {KEY.replace(chr(10) * 2, f"{chr(10)}.{chr(10)}").replace(chr(10), f"{chr(10)} ")}
"""
ONE_LINE = """\
# deb http://off.example/debian stable main
deb-src http://source.example/debian stable main
deb [arch=amd64 signed-by=/etc/apt/keyrings/a.gpg] http://mirror.example/debian/ stable main # main
deb http://mirror.example/security stable-security main
deb cdrom:[Debian]/ stable main
deb http://partial.example/debian stable contrib
"""


def test_apts_sources_in_both_formats() -> None:
    assert sources({"debian.sources": DEB822}) == [
        Source("http://mirror.example/debian", "/usr/share/keyrings/archive.gpg"),
        Source("https://other.example/debian", KEY),
    ]
    assert sources({"sources.list": ONE_LINE}) == [
        Source("http://mirror.example/debian/", "/etc/apt/keyrings/a.gpg")
    ]
    assert sources({}) == []


def test_only_what_leads_to_an_index_is_taken_over() -> None:
    environment = {
        "PIP_FIND_LINKS": "/srv/wheels",
        "UV_DEFAULT_INDEX": "https://index.example/simple",
        "SSL_CERT_FILE": "/etc/ca.crt",
        "https_proxy": "http://proxy.example",
        "UV_CACHE_DIR": "/somewhere",
        "UV_PYTHON": "3.12",
        "OPENAI_API_KEY": "a secret",
        "PATH": "/usr/bin",
    }
    assert set(reach.variables(environment)) == {
        "PIP_FIND_LINKS",
        "UV_DEFAULT_INDEX",
        "SSL_CERT_FILE",
        "https_proxy",
    }


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("find-links = /srv/wheels", ["/srv/wheels"]),
        (
            "extra-index-url = file:///srv/a/simple file:///srv/b/simple",
            ["/srv/a/simple", "/srv/b/simple"],
        ),
        ("index-url = https://index.example/root/simple", []),
    ],
)
def test_the_paths_in_a_setting(setting: str, named: list[str]) -> None:
    assert list(reach.paths(setting)) == [Path(name) for name in named]


def test_every_need_of_a_step_is_an_earlier_step() -> None:
    names = [step.name for step in walk.STEPS]
    for place, step in enumerate(walk.STEPS):
        assert set(step.needs) <= set(names[:place])


def test_a_step_that_fails_is_told_with_its_command_and_without_keys() -> None:
    class Scripted(walk.Walk):
        def __init__(self) -> None:
            self.system = "trixie"

        def hide(self, text: str) -> str:
            return text.replace("secret", "(a key)")

    def first(_walk: walk.Walk) -> None:
        raise walk.StepFailed("$ optictl init\nended with 1:\nsecret")

    def second(_walk: walk.Walk) -> None:
        raise AssertionError("never")

    def third(_walk: walk.Walk) -> None:
        pass

    steps = (walk.Step(first), walk.Step(second, ("first",)), walk.Step(third))
    told = [(outcome.step, outcome.problem) for outcome in walk.take(Scripted(), steps)]
    assert told == [
        ("first", "trixie: first: $ optictl init\nended with 1:\n(a key)"),
        ("second", "not run: needs first"),
        ("third", ""),
    ]


def test_the_table_names_what_failed_and_what_was_not_run() -> None:
    row = matrix.Row(
        date="2026-01-02",
        code="0.1.0 (abc1234)",
        suite="trixie",
        asked="3.12",
        systemd="257",
        kernel="6.1",
        optictl="3.12.1",
        release="3.12.1",
        seconds=61.0,
        outcomes=(
            walk.Outcome("demo", 1.0),
            walk.Outcome("tool", 1.0, "trixie: tool: $ x\nended | 1"),
        ),
    )
    never = matrix.not_run("bullseye", "3.11", "no CPython 3.11 on this machine")
    text = matrix.page([never, row])
    cells = {
        line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")
    }
    assert "no CPython 3.11 on this machine" in cells["bullseye"]
    assert "61 s" in cells["trixie"]
    assert "passed" in cells["trixie"]
    assert "failed [1]" in cells["trixie"]
    assert "not run" in cells["trixie"]  # the other steps
    assert "    ended | 1" in text
    # what a page says is read back whole, so that a run of some rows keeps the others
    assert matrix.merge([never, row], [matrix.not_run("trixie", "3.12", "why")]) == [
        never,
        matrix.not_run("trixie", "3.12", "why"),
    ]
