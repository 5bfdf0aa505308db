"""Parse env files as systemd does. Pure: bytes in, variables and problems out.

The guard, `optictl run` and `optictl check` use this parser, and see the same variables as the
unit.
Syntax: EnvironmentFile= of systemd 247 to 262. Source: systemd's src/basic/env-file.c;
tests/system/systemd/test_envfiles.py compares this parser with a booted systemd.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

#: Kind of a problem -> message. A message never quotes a line: it may contain a secret.
WORDS = {
    "utf-16": "the file is UTF-16, which systemd refuses",
    "nul": "it contains a NUL byte, and systemd refuses the file",
    "not-utf-8": "it is not UTF-8, and systemd refuses the file",
    "long": "it is longer than 128 KiB, the limit of a variable, and the service cannot start",
    "size": "the file is larger than 1 MB, the limit of a systemd credential",
    "bom": "the file begins with a byte order mark, and systemd ignores its first line",
    "export": "systemd ignores a line that begins with export",
    "name": "the text before = is not a name, and systemd ignores the line",
    "no-sign": "it has no =, and systemd ignores the line",
    "comment": "the comment ends with a backslash, and systemd before 254 ignores the next line",
    "swallowed": "an open quote or a backslash adds the lines below to its value",
}
_REFUSED = {"utf-16", "nul", "not-utf-8", "long", "size"}

#: The kernel's MAX_ARG_STRLEN with pages of 4 KiB: NAME=VALUE and a NUL.
MAX_VARIABLE = 131072
#: systemd passes at most 1 MiB of credentials to a unit, the proxy key included.
MAX_FILE = 1_000_000

_BOM = b"\xef\xbb\xbf"
_BLANKS = b" \t\n\r"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
#: Text that messages may show although it is not a name: a key has digits or lower-case letters.
_HARMLESS = re.compile(r"[A-Z][A-Z_.-]*", re.ASCII)
_EXPORT = re.compile(r"export[ \t]+")
_ASSIGNS = re.compile(rb"[ \t]*(?:export[ \t]+)?[A-Za-z_][A-Za-z0-9_]*[ \t]*=")
_NEXT_LINE = re.compile(rb"[\n\r]")
_KEY_END = re.compile(rb"[=\n\r]")
_OLD_COMMENT = re.compile(rb"[^\\\n\r]*(?:\\.?[^\\\n\r]*)*", re.S)


@dataclass(frozen=True)
class Problem:
    """A line that systemd does not read as intended.

    `kind`: a key of WORDS. `name`: the variable, or "" when it is not known.
    """

    kind: str
    line: int
    name: str = ""

    @property
    def refuses(self) -> bool:
        """Whether systemd refuses the whole file."""
        return self.kind in _REFUSED

    def __str__(self) -> str:
        named = f" ({self.name})" if self.name else ""
        return f"line {self.line}{named}: {WORDS[self.kind]}"


@dataclass(frozen=True)
class EnvFile:
    """The variables that the service gets from an env file. None if systemd refuses the file.

    `meant`: the names in all lines that look like an assignment, also in lines that systemd
    ignores.
    """

    variables: dict[str, str] = field(repr=False)
    meant: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def refused(self) -> bool:
        return any(problem.refuses for problem in self.problems)

    def loses(self, name: str) -> bool:
        """Whether the file contains a variable, but the service does not get it."""
        return name not in self.variables and (name in self.meant or self.refused)


def read(data: bytes, *, comments_continue: bool = False) -> EnvFile:
    """Parse an env file as systemd does.

    `comments_continue`: a backslash at the end of a comment hides the next line, as before systemd
    254.
    """
    if b"\0" in data:
        return EnvFile({}, (), (_of_nul(data),))
    reader = _Reader(data, comments_continue)
    reader.run()
    refused = any(problem.refuses for problem in reader.problems)
    return EnvFile({} if refused else reader.variables, tuple(reader.meant), tuple(reader.problems))


def shell_variables(data: bytes) -> dict[str, str]:
    """The variables of an env file for a shell or systemd: with `export`, in any encoding.

    It is for files of other services (LiteLLM), whose reader is not known.
    """
    if encoding := utf_16(data):
        data = data.decode(encoding, "replace").encode("utf-8", "replace")
    found = {}
    for entry in _entries(data.removeprefix(_BOM).replace(b"\0", b""), comments_continue=False):
        name = _meant(entry.key.decode("utf-8", "replace"))
        if entry.value is not None and name:
            found[name] = entry.value.decode("utf-8", "replace")
    return found


def utf_16(data: bytes) -> str | None:
    """The name of a file's UTF-16 encoding, for Python and iconv. None for other encodings."""
    if b"\0" not in data:
        return None
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "UTF-16"
    even, odd = data[:200:2], data[1:200:2]
    if not any(odd):
        return "UTF-16LE"
    return None if any(even) else "UTF-16BE"


def _of_nul(data: bytes) -> Problem:
    """The problem of a file with NUL bytes, with the first variable in it."""
    if (encoding := utf_16(data)) is None:
        return Problem("nul", data.count(b"\n", 0, data.index(b"\0")) + 1)
    text = data.decode(encoding, "replace").encode("utf-8", "replace")
    inside = _Reader(text.replace(b"\0", b""), comments_continue=False)
    inside.run()
    return Problem("utf-16", *next(iter(inside.meant.items()), ("", 1))[::-1])


@dataclass(frozen=True)
class _Entry:
    """An assignment, a line without = (`value` is None), or a comment (`key` is b"#").

    Offsets are in bytes.
    """

    key: bytes
    value: bytes | None
    begin: int
    end: int
    closed: bool = True


class _Reader:
    """Reads a file once. `meant`: name -> the first line that sets it."""

    def __init__(self, data: bytes, comments_continue: bool) -> None:
        self.data, self.comments_continue = data, comments_continue
        self.line_ends = [match.start() for match in re.finditer(rb"\n", data)]
        self.variables: dict[str, str] = {}
        self.meant: dict[str, int] = {}
        self.problems: list[Problem] = []

    def run(self) -> None:
        if len(self.data) > MAX_FILE:
            self.problems.append(Problem("size", 1))
        for entry in _entries(self.data, self.comments_continue):
            self._take(entry)

    def _take(self, entry: _Entry) -> None:
        line = bisect_left(self.line_ends, entry.begin) + 1
        if entry.key == b"#" and entry.value is None:
            if _hides_a_line(self.data, entry.begin):
                self.problems.append(Problem("comment", line))
            return
        if entry.value is None:
            self.problems.append(Problem("bom" if self._after_bom(entry) else "no-sign", line))
            return
        key = _text(entry.key)
        name = _meant(key.removeprefix("\ufeff")) if key is not None else ""
        shown = name or (key if key and _HARMLESS.fullmatch(key) else "")
        if name:
            self.meant.setdefault(name, line)
        if kinds := self._kinds(entry, key):
            self.problems += [Problem(kind, line, shown) for kind in kinds]
        elif key is not None and entry.value is not None:
            self.variables[key] = entry.value.decode()
        if self._swallows(entry):
            self.problems.append(Problem("swallowed", line, shown))

    def _after_bom(self, entry: _Entry) -> bool:
        return entry.begin == 0 and entry.key.startswith(_BOM)

    def _kinds(self, entry: _Entry, key: str | None) -> list[str]:
        """The reasons why the service does not get a variable. Empty when it does."""
        if key is None or _text(entry.value or b"") is None:
            return ["not-utf-8"]
        kinds = []
        if self._after_bom(entry):
            kinds, key = ["bom"], key.removeprefix("\ufeff")
        if _EXPORT.match(key) and _meant(key):
            return [*kinds, "export"]
        # without the byte order mark, this is a comment
        if not _NAME.fullmatch(key) and not (kinds and key.startswith(("#", ";"))):
            return [*kinds, "name"]
        if len(entry.key) + len(entry.value or b"") + len("=\0") > MAX_VARIABLE:
            return ["long"]
        return kinds

    def _swallows(self, entry: _Entry) -> bool:
        """Whether a value includes lines that look like assignments, or has an unclosed quote."""
        below = self.data[entry.begin : entry.end].splitlines()[1:]
        return not entry.closed or any(_ASSIGNS.match(line) for line in below)


def _text(data: bytes) -> str | None:
    """Decode UTF-8. None for what systemd refuses: invalid UTF-8 and noncharacters of Unicode."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    strange = any(0xFDD0 <= ord(c) <= 0xFDEF or ord(c) & 0xFFFE == 0xFFFE for c in text)
    return None if strange else text


def _meant(key: str) -> str:
    """The intended name, with or without `export` before it. "" when there is none."""
    name = _EXPORT.sub("", key, count=1) if _EXPORT.match(key) else key
    return name if _NAME.fullmatch(name) else ""


def _hides_a_line(data: bytes, begin: int) -> bool:
    """Whether, before systemd 254, a comment that begins here hides a line with content."""
    hidden = data[begin : _end_of_old_comment(data, begin)].splitlines()[1:]
    return any(
        line.strip(_BLANKS) and line.strip(_BLANKS)[:1] not in (b"#", b";") for line in hidden
    )


def _entries(data: bytes, comments_continue: bool) -> Iterator[_Entry]:
    """The assignments, lines without =, and comments of an env file without NUL bytes."""
    at = 0
    while True:
        while data[at : at + 1] and data[at] in _BLANKS:
            at += 1
        if at >= len(data):
            return
        entry = (
            _comment(data, at, comments_continue) if data[at] in b"#;" else _assignment(data, at)
        )
        yield entry
        at = entry.end


def _comment(data: bytes, begin: int, continues: bool) -> _Entry:
    return _Entry(
        b"#", None, begin, (_end_of_old_comment if continues else _end_of_line)(data, begin)
    )


def _end_of_old_comment(data: bytes, begin: int) -> int:
    match = _OLD_COMMENT.match(data, begin)
    return match.end() if match else begin


def _end_of_line(data: bytes, begin: int) -> int:
    """The offset of the line's end. A carriage return ends a line too."""
    match = _NEXT_LINE.search(data, begin)
    return match.start() if match else len(data)


def _assignment(data: bytes, begin: int) -> _Entry:
    # a = at the beginning is part of the name
    match = _KEY_END.search(data, begin + 1)
    if match is None or match[0] != b"=":
        end = match.start() if match else len(data)
        return _Entry(data[begin:end], None, begin, end)
    value = _Value(data, match.end())
    value.read()
    return _Entry(
        data[begin : match.start()].rstrip(_BLANKS),
        bytes(value.text),
        begin,
        value.at,
        value.closed,
    )


class _Value:
    """The value at an offset: quoted parts first, then unquoted text up to the line's end."""

    _PLAIN = re.compile(rb"[^\\\n\r]+")
    _IN_DOUBLE = re.compile(rb"[^\"\\]+")

    def __init__(self, data: bytes, begin: int) -> None:
        self.data, self.at = data, begin
        self.text = bytearray()
        self.closed = True

    def read(self) -> None:
        while self.at < len(self.data):
            sign = self.data[self.at : self.at + 1]
            if sign in (b" ", b"\t"):
                self.at += 1
            elif sign in (b"\n", b"\r"):
                return
            elif sign == b"'":
                self._single()
            elif sign == b'"':
                self._double()
            else:
                self._unquoted()
                return

    def _single(self) -> None:
        end = self.data.find(b"'", self.at + 1)
        self.closed = end >= 0
        end = end if self.closed else len(self.data)
        self.text += self.data[self.at + 1 : end]
        self.at = end + self.closed

    def _double(self) -> None:
        self.at += 1
        while self.at < len(self.data):
            if match := self._IN_DOUBLE.match(self.data, self.at):
                self.text += match[0]
                self.at = match.end()
            elif self.data[self.at : self.at + 1] == b'"':
                self.at += 1
                return
            else:
                following = self.data[self.at + 1 : self.at + 2]
                # as in a shell, the backslash stays before other characters, and joins lines
                if following not in (b"\n", b""):
                    self.text += following if following in b'"\\`$' else b"\\" + following
                self.at += 1 + len(following)
        self.closed = False

    def _unquoted(self) -> None:
        """Read to the line's end. Drops blanks at its end, but not blanks before a backslash."""
        kept = len(self.text)
        while self.at < len(self.data):
            if match := self._PLAIN.match(self.data, self.at):
                text = match[0].rstrip(_BLANKS)
                kept = len(self.text) + len(text) if text else kept
                self.text += match[0]
                self.at = match.end()
            elif self.data[self.at : self.at + 1] == b"\\":
                following = self.data[self.at + 1 : self.at + 2]
                self.text += b"" if following in (b"\n", b"\r") else following
                kept = len(self.text)
                self.at += 1 + len(following)
            else:
                break
        del self.text[kept:]
