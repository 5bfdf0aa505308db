"""systemd's syntax: what hand-written units really hold, and what systemd makes of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optictl.takeover import unitfile
from optictl.takeover.unitfile import Unreadable

TABLE = {"h": "/root", "n": "optillm-proxy.service"}


def settings(text: str, *drop_ins: str) -> unitfile.Settings:
    return unitfile.settings(("u", text), *((f"d{n}", t) for n, t in enumerate(drop_ins, 1)))


class TestLines:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("[Service]\nA=1\n", [(1, "[Service]"), (2, "A=1")]),
            ("# a\n; b\n  # c\n\nA=1", [(5, "A=1")]),
            ("A=1 \\\n  2 \\\n  3\n", [(1, "A=1  2  3")]),
            # a comment inside of a continuation is left out, and ends nothing
            ("A=1 \\\n# no\n  ; nor this\n  2\nB=3", [(1, "A=1  2"), (5, "B=3")]),
            # two backslashes are one, and the line ends
            ("A=1 \\\\\nB=2", [(1, "A=1 \\\\"), (2, "B=2")]),
            ("A=1 \\\n\nB=2", [(1, "A=1"), (3, "B=2")]),
            ("A=1 \\", [(1, "A=1")]),
            ("\ufeff[Unit]\r\nA=1\r\n", [(1, "[Unit]"), (2, "A=1")]),
            ("A=1 \\\r\n 2\r\n", [(1, "A=1  2")]),
        ],
    )
    def test_joined_and_numbered(self, text: str, expected: list[tuple[int, str]]) -> None:
        assert unitfile.logical_lines(text) == expected


class TestSettings:
    def test_the_last_one_counts_and_an_empty_one_takes_it_back(self) -> None:
        found = settings("[Service]\nUser=a\nUser=b\nGroup=g\nGroup=\n")
        assert found.last("User") is not None
        assert found.last("User").value == "b"  # type: ignore[union-attr]
        assert found.last("Group") is None

    def test_an_empty_one_empties_a_list_also_from_a_drop_in(self) -> None:
        found = settings("[Service]\nExecStart=/a\n", "[Service]\nExecStart=\nExecStart=/b\n")
        assert [(e.value, e.where) for e in found.all("ExecStart")] == [("/b", "d1:3")]

    def test_sections_are_apart(self) -> None:
        found = settings("[Unit]\nUser=x\n[Install]\nUser=y\n[Service]\nUser=z\n[Unit]\nAfter=a\n")
        assert [e.value for e in found.all("User")] == ["z"]
        assert found.names("Unit") == ["User", "After"]

    def test_spaces_around_the_sign(self) -> None:
        user = settings("[Service]\n  User = me you \n").last("User")
        assert user is not None
        assert user.value == "me you"

    def test_what_systemd_warns_about_is_told_without_its_text(self) -> None:
        found = settings("User=a\n[Service\nhunter2\n[Service]\nUser=b\n=x\n")
        assert [e.value for e in found.all("User")] == ["b"]
        assert [p.partition(":")[2].partition(":")[0] for p in found.problems] == [
            "1",
            "2",
            "3",
            "6",
        ]
        assert "hunter2" not in "".join(found.problems)

    def test_no_value_in_a_repr(self) -> None:
        assert "hunter2" not in repr(settings("[Service]\nEnvironment=A=hunter2\n"))


class TestWords:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", []),
            ("a  b\tc", ["a", "b", "c"]),
            ("\"a b\" 'c d'", ["a b", "c d"]),
            ("a\"b c\"d 'e'f", ["ab cd", "ef"]),
            ('""', [""]),
            (r"a\ b", [r"a\ b"]),
            (r"a\sb \x41 \101 \t", ["a b", "A", "A", "\t"]),
            (r"'\x41' '\n'", ["A", "\n"]),
            (r"\u00e9 \U0001f600 \xc3\xa9", ["\u00e9", "\U0001f600", "\u00e9"]),
            # unknown escapes stay, as systemd warns and goes on
            (r"\d \q \x4 \400 \x00", [r"\d", r"\q", r"\x4", r"\400", r"\x00"]),
            (r'"a \"b\" c"', ['a "b" c']),
            ("'it''s'", ["its"]),
        ],
    )
    def test_quotes_and_escapes(self, text: str, expected: list[str]) -> None:
        assert unitfile.words(text) == expected

    @pytest.mark.parametrize("text", ['"a b', "a 'b", 'x "y\\" z'])
    def test_an_open_quote(self, text: str) -> None:
        with pytest.raises(Unreadable, match="not closed"):
            unitfile.words(text)

    @given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"))))
    def test_what_is_quoted_is_read_back(self, words: list[str]) -> None:
        quoted = ('"' + w.replace("\\", "\\\\").replace('"', '\\"') + '"' for w in words)
        assert unitfile.words(" ".join(quoted)) == words

    @given(st.text(st.sampled_from("ab '\"\\;x40%$\t")))
    def test_any_text_is_read_or_refused_for_its_quotes(self, text: str) -> None:
        try:
            words = unitfile.words(text)
        except Unreadable:
            assert set(text) & set("'\"")
        else:
            assert all(isinstance(word, str) for word in words)


class TestExec:
    def lines(self, value: str) -> list[unitfile.ExecLine]:
        return unitfile.exec_lines(unitfile.Entry("Service", "ExecStart", value, "u:1"), TABLE)

    @pytest.mark.parametrize(
        ("value", "prefixes", "words"),
        [
            ("/bin/a b", "", ("/bin/a", "b")),
            ("-/bin/a b", "-", ("/bin/a", "b")),
            ("@/bin/a name b", "@", ("/bin/a", "b")),
            ("-@:+/bin/a name b", "-@:+", ("/bin/a", "b")),
            ("!!/bin/a", "!!", ("/bin/a",)),
            ("|/bin/a", "|", ("/bin/a",)),
            (
                "%h/.venv/bin/optillm --x %n 100%%",
                "",
                ("/root/.venv/bin/optillm", "--x", "optillm-proxy.service", "100%"),
            ),
            ("/bin/a %Z", "", ("/bin/a", "%Z")),
            (r"/bin/a \; b ';' c", "", ("/bin/a", ";", "b", ";", "c")),
        ],
    )
    def test_one_command(self, value: str, prefixes: str, words: tuple[str, ...]) -> None:
        (line,) = self.lines(value)
        assert (line.prefixes, line.words) == (prefixes, words)

    def test_several_commands(self) -> None:
        assert [line.words for line in self.lines("/bin/a 1 ; /bin/b 2;x ;")] == [
            ("/bin/a", "1"),
            ("/bin/b", "2;x"),
        ]

    def test_no_program(self) -> None:
        with pytest.raises(Unreadable):
            self.lines("-@ a")

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("/b $A ${A} x${A}y x$A", ["1", "2", "1 2", "x1 2y", "x$A"]),
            ("/b $$A $${A} $NONE ${NONE}", ["$A", "${A}", ""]),
            ("/b $Q", ["a b", "c"]),
            ("/b $A-x $ '$A x' y", ["y"]),
            ("/b x${A-$$ x${-}y", ["x${A-$$", "xy"]),
            (":/b $A ${A}", ["$A", "${A}"]),
            ("/b '$A' \"${A}\"", ["1", "2", "1 2"]),
        ],
    )
    def test_variables(self, value: str, expected: list[str]) -> None:
        (line,) = self.lines(value)
        assert list(unitfile.expanded(line, {"A": "1 2", "Q": "'a b' c"})[1:]) == expected


def test_environment() -> None:
    entries = settings(
        "[Service]\nEnvironment=A=1 \"B=2 3\" C='4'\nEnvironment=D=%n%% A=9 junk\nEnvironment='E\n"
    ).all("Environment")
    values, places, problems = unitfile.assigned(entries, TABLE)
    assert values == {"A": "9", "B": "2 3", "C": "4", "D": "optillm-proxy.service%"}
    assert places["A"] == "Environment= in u:3"
    assert len(problems) == 2


def test_drop_ins_by_file_name_and_the_first_directory_wins() -> None:
    assert unitfile.drop_in_directories("optillm-proxy.service") == [
        "optillm-proxy.service.d",
        "optillm-.service.d",
        "service.d",
    ]
    tree = {"/etc/x.d": ["20.conf", "10.conf", "note.txt"], "/usr/x.d": ["10.conf", "15.conf"]}
    assert unitfile.in_order(list(tree), lambda d: tree[d]) == [
        "/etc/x.d/10.conf",
        "/usr/x.d/15.conf",
        "/etc/x.d/20.conf",
    ]
