"""Parse unit files and drop-ins into settings. Pure.

Sources: systemd.syntax(7), systemd.service(5). For a text that systemd accepts with a warning, this
module returns a problem and raises nothing. Problems never quote a value: it may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

#: White space: it separates words, and systemd strips it from both ends of a line.
_SPACE = " \t\r\n"
_COMMENT = ("#", ";")
#: Prefixes of a program: ignore a failure, another argv[0], no variables, full privileges.
_PREFIXES = "-@:+!|"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SIMPLE_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    '"': '"',
    "'": "'",
    "s": " ",
}
#: Letter of an escape -> number of hex digits after it.
_HEX_ESCAPES = {"x": 2, "u": 4, "U": 8}


class Unreadable(Exception):
    """systemd refuses a value. `str()` is the reason, without the value."""


@dataclass(frozen=True)
class Entry:
    """An assignment. `where`: `FILE:LINE` of its first line."""

    section: str
    name: str
    value: str = field(repr=False)
    where: str


@dataclass(frozen=True)
class ExecLine:
    """A command of an Exec line, before variables are expanded. `prefixes`: see `_PREFIXES`."""

    prefixes: str
    words: tuple[str, ...] = field(repr=False)
    where: str

    @property
    def expands(self) -> bool:
        """Whether systemd expands variables in it."""
        return ":" not in self.prefixes

    @property
    def program(self) -> str:
        return self.words[0] if self.words else ""


@dataclass(frozen=True)
class Settings:
    """The assignments of a unit and its drop-ins, in the order in which systemd reads them."""

    entries: tuple[Entry, ...]
    problems: tuple[str, ...] = ()

    def last(self, name: str, section: str = "Service") -> Entry | None:
        """The effective assignment of a setting with one value. None when it is unset or empty."""
        assignments = [e for e in self.entries if (e.section, e.name) == (section, name)]
        return assignments[-1] if assignments and assignments[-1].value else None

    def all(self, name: str, section: str = "Service") -> list[Entry]:
        """The effective assignments of a list setting. An empty one removes those before it."""
        assignments: list[Entry] = []
        for entry in self.entries:
            if (entry.section, entry.name) == (section, name):
                assignments = [*assignments, entry] if entry.value else []
        return assignments

    def names(self, section: str = "Service") -> list[str]:
        """The names of the settings in a section, without duplicates."""
        return list(dict.fromkeys(e.name for e in self.entries if e.section == section))


def settings(*files: tuple[str, str]) -> Settings:
    """Parse (path, text) of a unit and its drop-ins, in systemd's order."""
    entries: list[Entry] = []
    problems: list[str] = []
    for path, text in files:
        own, wrong = _entries(path, text)
        entries += own
        problems += wrong
    return Settings(tuple(entries), tuple(problems))


def _entries(path: str, text: str) -> tuple[list[Entry], list[str]]:
    entries: list[Entry] = []
    problems: list[str] = []
    section = ""
    for number, line in logical_lines(text):
        where = f"{path}:{number}"
        name, sign, value = line.partition("=")
        if line.startswith("["):
            section = line[1:-1] if line.endswith("]") else ""
            if not section:
                problems.append(f"{where}: a section without its closing bracket")
        elif not sign or not name.strip():
            problems.append(f"{where}: a line without NAME=")
        elif not section:
            problems.append(f"{where}: {name.strip()}= is outside of any section")
        else:
            entries.append(Entry(section, name.strip(_SPACE), value.strip(_SPACE), where))
    return entries, problems


def logical_lines(text: str) -> list[tuple[int, str]]:
    """(number of its first line, text) of every line: without comments, continuations joined."""
    lines: list[tuple[int, str]] = []
    begun, joined = 0, ""
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = raw.lstrip(_SPACE)
        if line.startswith(_COMMENT):  # also between continued lines
            continue
        begun, joined = begun or number, joined + line.rstrip("\r")
        if _goes_on(joined):
            joined = joined[:-1] + " "
            continue
        lines.append((begun, joined.strip(_SPACE)))
        begun, joined = 0, ""
    if begun:  # the file ends in a backslash
        lines.append((begun, joined.strip(_SPACE)))
    return [(number, line) for number, line in lines if line]


def _goes_on(line: str) -> bool:
    """Whether a line ends in a backslash that is not itself escaped."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def words(text: str) -> list[str]:
    """The words of a value, without quotes and with escapes replaced.

    Raises:
        Unreadable: a quote is not closed.
    """
    result = []
    rest = text
    while (parsed := _first_word(rest)) is not None:
        word, rest = parsed
        result.append(word)
    return result


def _first_word(text: str) -> tuple[str, str] | None:
    """(the first word, the text after it). None when there is no word."""
    text = text.lstrip(_SPACE)
    if not text:
        return None
    word, quote, at = bytearray(), "", 0
    while at < len(text):
        sign = text[at]
        if sign == "\\":
            value, length = _escape(text[at + 1 :])
            word += value
            at += 1 + length
            continue
        at += 1
        if quote:
            if sign == quote:
                quote = ""
            else:
                word += sign.encode("utf-8", "surrogateescape")
        elif sign in "\"'":
            quote = sign
        elif sign in _SPACE:
            break
        else:
            word += sign.encode("utf-8", "surrogateescape")
    if quote:
        raise Unreadable(f"a quote ({quote}) is not closed")
    return word.decode("utf-8", "replace"), text[at:].lstrip(_SPACE)


def _escape(text: str) -> tuple[bytes, int]:
    """The value and length of the escape at the start of `text`, after its backslash.

    systemd warns about an unknown escape and keeps it unchanged.
    """
    sign = text[:1]
    if sign in _SIMPLE_ESCAPES and sign:
        return _SIMPLE_ESCAPES[sign].encode(), 1
    if sign in _HEX_ESCAPES:
        digits = text[1 : 1 + _HEX_ESCAPES[sign]]
        if re.fullmatch(rf"[0-9a-fA-F]{{{_HEX_ESCAPES[sign]}}}", digits) and (
            code := int(digits, 16)
        ):
            if sign == "x":
                return bytes([code]), 3
            if code < 0x110000 and not 0xD800 <= code < 0xE000:
                return chr(code).encode(), 1 + len(digits)
    elif re.fullmatch(r"[0-3][0-7]{2}", text[:3]) and (code := int(text[:3], 8)):
        return bytes([code]), 3
    return b"\\" + sign.encode("utf-8", "surrogateescape"), len(sign)


def specified(text: str, table: Mapping[str, str]) -> str:
    """A value with its % specifiers replaced. `table`: letter -> value; unknown ones stay."""
    known = {"%": "%", **table}
    return re.sub(r"%(.)", lambda m: known.get(m[1], m[0]), text, flags=re.S)


def exec_lines(entry: Entry, table: Mapping[str, str]) -> list[ExecLine]:
    """The commands of an Exec line. A single semicolon separates two.

    Raises:
        Unreadable: systemd refuses the line.
    """
    commands = []
    rest = entry.value
    while rest:
        parsed = _first_word(rest)
        if parsed is None:
            break
        first, rest = parsed
        program = first.lstrip(_PREFIXES)
        prefixes = first[: len(first) - len(program)]
        if not program:
            raise Unreadable("it has no program")
        arguments, rest = _arguments(rest, table)
        # the word after @ is the program's argv[0]
        arguments = arguments[1:] if "@" in prefixes else arguments
        commands.append(ExecLine(prefixes, (specified(program, table), *arguments), entry.where))
    return commands


def _arguments(text: str, table: Mapping[str, str]) -> tuple[list[str], str]:
    """The words before a single semicolon, and the text after it."""
    arguments: list[str] = []
    rest = text
    while rest:
        if lone := re.match(r"(\\?);(?:\s+|$)", rest):
            rest = rest[lone.end() :]
            if not lone[1]:
                return arguments, rest
            arguments.append(";")
            continue
        parsed = _first_word(rest)
        if parsed is None:
            break
        arguments.append(specified(parsed[0], table))
        rest = parsed[1]
    return arguments, ""


def expanded(line: ExecLine, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The command line with its variables: the value of $NAME is split, that of ${NAME} is not.

    In a word that begins with $, all the rest is the name. A variable without a value is removed.
    """
    if not line.expands:
        return line.words
    result = [*line.words[:1]]
    for word in line.words[1:]:
        if word.startswith("$") and word[1:2] not in ("{", "$"):
            result += _split_leniently(environment.get(word[1:], ""))
        else:
            result.append(_put_in(word, environment))
    return tuple(result)


def _put_in(word: str, environment: Mapping[str, str]) -> str:
    """A word with ${NAME} and $$ replaced. After an unclosed ${, the text stays unchanged."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return match[0] if match[1] is None else environment.get(match[1], "")

    return re.sub(r"\$\$|\$\{([^}]*)\}|\$\{.*", value, word, flags=re.S)


def _split_leniently(value: str) -> list[str]:
    try:
        return words(value)
    except Unreadable:
        return value.split()


def assigned(
    entries: Iterable[Entry], table: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """The variables of Environment=: (name -> value, name -> place, problems)."""
    values: dict[str, str] = {}
    places: dict[str, str] = {}
    problems = []
    for entry in entries:
        try:
            pairs = [specified(word, table).partition("=") for word in words(entry.value)]
        except Unreadable as why:
            problems.append(f"{entry.where}: {entry.name}= cannot be read: {why}")
            continue
        for name, sign, value in pairs:
            if sign and _VARIABLE.fullmatch(name):
                values[name], places[name] = value, f"Environment= in {entry.where}"
            else:
                problems.append(f"{entry.where}: a word of Environment= is not NAME=VALUE")
    return values, places, problems


def flag(entry: Entry | None) -> bool:
    """The value of a boolean setting. False when it is unset."""
    return entry is not None and entry.value.lower() in ("1", "yes", "y", "true", "t", "on")


def drop_in_directories(unit: str) -> list[str]:
    """The names of a unit's drop-in directories: its name, its prefixes, its type."""
    stem, dot, kind = unit.rpartition(".")
    parts = stem.split("-")
    prefixes = ["-".join(parts[:n]) + "-" for n in range(len(parts) - 1, 0, -1)]
    return [f"{name}{dot}{kind}.d" for name in (stem, *prefixes)] + [f"{kind}.d"]


def in_order(directories: Sequence[str], listed: Callable[[str], Iterable[str]]) -> list[str]:
    """The effective drop-ins, by file name. Of equal names, only the first directory's.

    `directories`: highest priority first. `listed`: returns the file names in a directory.
    """
    chosen: dict[str, str] = {}
    for directory in directories:
        for name in listed(directory):
            if name.endswith(".conf"):
                chosen.setdefault(name, f"{directory}/{name}")
    return [chosen[name] for name in sorted(chosen)]
