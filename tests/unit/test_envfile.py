"""The reader of env files. tests/system/systemd/test_envfiles.py compares it with systemd."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optictl.guard import envfile, invariants

SECRET = "hidden0value"


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("A=1\nB=2\n", {"A": "1", "B": "2"}),
        ("A=1\nA=2", {"A": "2"}),
        ("  A = x y \t\n", {"A": "x y"}),
        ("# A=1\n;A=2\n\n", {}),
        ("A=1 # no comment\n", {"A": "1 # no comment"}),
        ("A='it''s \\n'\n", {"A": "its \\n"}),
        ('A="a\\"b\\\\c\\$d\\`e\\nf"\n', {"A": 'a"b\\c$d`e\\nf'}),
        ("A=\"one\ntwo\" ' three'four\n", {"A": "one\ntwo threefour"}),
        ("A=x\\\n  y\n", {"A": "x  y"}),
        ("A=C:\\x\\ \\ \n", {"A": "C:x  "}),
        ("A=1\r\nB='2'\r\n", {"A": "1", "B": "2"}),
        ("A=caf\u00e9\n", {"A": "caf\u00e9"}),
        ("A=\n", {"A": ""}),
        ("A==\n", {"A": "="}),
    ],
)
def test_what_reaches_the_service(text: str, variables: dict[str, str]) -> None:
    read = envfile.read(text.encode())
    assert read.variables == variables
    assert read.problems == ()


@pytest.mark.parametrize(
    ("content", "problems"),
    [
        (f"A=1\nexport OPENAI_API_KEY={SECRET}\n".encode(), ["export 2 OPENAI_API_KEY"]),
        (f"\ufeffOPENAI_API_KEY={SECRET}\n".encode(), ["bom 1 OPENAI_API_KEY"]),
        (
            f"\ufeffexport OPENAI_API_KEY={SECRET}\n".encode(),
            ["bom 1 OPENAI_API_KEY", "export 1 OPENAI_API_KEY"],
        ),
        ("\ufeff# a = b\nA=1\n".encode(), ["bom 1 "]),
        ("\ufeff# a\nA=1\n".encode(), ["bom 1 "]),
        (f"\nOPENAI_API_KEY={SECRET}\n".encode("utf-16"), ["utf-16 2 OPENAI_API_KEY"]),
        (f"OPENAI_API_KEY={SECRET}\n".encode("utf-16-le"), ["utf-16 1 OPENAI_API_KEY"]),
        (f"OPENAI_API_KEY={SECRET}\n".encode("utf-16-be"), ["utf-16 1 OPENAI_API_KEY"]),
        (f"# caf\u00e9\nHTTP_PROXY=\u00e9{SECRET}\n".encode("latin-1"), ["not-utf-8 2 HTTP_PROXY"]),
        (f"A=\ufdd0{SECRET}\n".encode(), ["not-utf-8 1 A"]),
        (f"A=1\nB=\0{SECRET}\n".encode(), ["nul 2 "]),
        (f"{SECRET}\n".encode(), ["no-sign 1 "]),
        (f"sk-{SECRET}=\nOPENAI-API-KEY={SECRET}\n".encode(), ["name 1 ", "name 2 OPENAI-API-KEY"]),
        (b"# a \\\nA=1\n", ["comment 1 "]),
        (b"# a \\\n\nA=1\n", []),
        (b"# a \\\\\nA=1\n", []),
        (f"A='{SECRET}\nB=1\n".encode(), ["swallowed 1 A"]),
        (f"A={SECRET}\\\nB=1\n".encode(), ["swallowed 1 A"]),
        (b"A=" + b"x" * envfile.MAX_VARIABLE, ["long 1 A"]),
        (b"#" * (envfile.MAX_FILE + 1), ["size 1 "]),
    ],
)
def test_what_is_told(content: bytes, problems: list[str]) -> None:
    read = envfile.read(content)
    assert [f"{p.kind} {p.line} {p.name}" for p in read.problems] == problems
    assert SECRET not in "".join(map(str, read.problems)) + repr(read)


@pytest.mark.parametrize(
    "content", ["A=\u00e9\nB=1".encode("latin-1"), "A=1\nB=1".encode("utf-16"), b"A=1\n\0"]
)
def test_of_a_file_that_systemd_refuses_nothing_is_taken(content: bytes) -> None:
    read = envfile.read(content)
    assert read.refused
    assert read.variables == {}
    assert read.loses("B")


def test_a_line_that_is_ignored_loses_its_variable() -> None:
    read = envfile.read(b"export A=1\nB=2\nexport B=1\n")
    assert not read.refused
    assert (read.loses("A"), read.loses("B"), read.loses("C")) == (True, False, False)


def test_a_comment_hides_the_next_line_from_an_old_systemd_only() -> None:
    content = b"# one \\\nA=1\nB=2\n"
    assert envfile.read(content).variables == {"A": "1", "B": "2"}
    assert envfile.read(content, comments_continue=True).variables == {"B": "2"}


@given(st.binary(max_size=80))
def test_no_bytes_are_too_strange(content: bytes) -> None:
    read = envfile.read(content)
    assert not (read.refused and read.variables)
    envfile.shell_variables(content)


@pytest.mark.parametrize(
    "content",
    [
        b"export A='x y'\n",
        b"\xef\xbb\xbfA=x y\n",
        "A=x y\r\n".encode("utf-16"),
        b"A=x y\nB=\xe9\n",
        b'no sign\n# comment\nA="x y"\n',
    ],
)
def test_another_services_file_is_read_with_patience(content: bytes) -> None:
    assert envfile.shell_variables(content)["A"] == "x y"


GOOD = {
    "host": "127.0.0.1",
    "base_url": "http://127.0.0.1:4000/v1",
    "approach": "auto",
    "proxy_key": "a-proxy-key-0123456789abcdef",
    "uid": 1,
    "proxy_config": None,
}


@pytest.mark.parametrize(
    ("content", "reasons"),
    [
        (b"OPENAI_API_KEY=k\n", []),
        (
            b"export OPENAI_API_KEY=k\n",
            [
                "the env file, line 1 (OPENAI_API_KEY): "
                "systemd ignores a line that begins with export"
            ],
        ),
        (b"OPENAI_API_KEY=\n", ["OPENAI_API_KEY is missing: OptiLLM would ignore --base-url"]),
        (
            b"stray\nOPENAI_API_KEY=\n",
            [
                "the env file, line 1: it has no =, and systemd ignores the line",
                "OPENAI_API_KEY is missing: OptiLLM would ignore --base-url",
            ],
        ),
        (
            b"OPENAI_API_KEY=\xe9\n",
            [
                "the env file, line 1 (OPENAI_API_KEY): "
                "it is not UTF-8, and systemd refuses the file"
            ],
        ),
    ],
)
def test_the_guard_names_the_line(content: bytes, reasons: list[str]) -> None:
    env_file = envfile.read(content)
    refusals = invariants.refusals(**GOOD, environ=env_file.variables, env_file=env_file)
    assert refusals == reasons
