"""systemd's unit files: text and drop-ins into settings, as systemd.syntax(7) and systemd.service(5) say. Pure.

Nothing here raises for a text that systemd would warn about and go on with: the warning is a problem, in words. Values may
be secrets, so that no problem quotes one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

#: What separates words, and what systemd strips from both ends of a line.
_SPACE = " \t\r\n"
_COMMENT = ("#", ";")
#: Marks in front of a program: ignore its failure, its own argv[0], no variables, full privileges.
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
#: Digits after the letter of an escape.
_HEX_ESCAPES = {"x": 2, "u": 4, "U": 8}


class Unreadable(Exception):
    """A value that systemd refuses. `str()` says why and quotes nothing of it."""


@dataclass(frozen=True)
class Entry:
    """One assignment. `where` is `FILE:LINE`, the line being the one on which it begins."""

    section: str
    name: str
    value: str = field(repr=False)
    where: str


@dataclass(frozen=True)
class ExecLine:
    """One command of ExecStart= and its like, before variables are put in. `prefixes` are its marks."""

    prefixes: str
    words: tuple[str, ...] = field(repr=False)
    where: str

    @property
    def expands(self) -> bool:
        """Whether systemd puts variables into it."""
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
        """The assignment that counts of a setting with one value; None where it is unset or emptied."""
        found = [e for e in self.entries if (e.section, e.name) == (section, name)]
        return found[-1] if found and found[-1].value else None

    def all(self, name: str, section: str = "Service") -> list[Entry]:
        """The assignments that count of a setting that adds up: an empty one takes back those before it."""
        found: list[Entry] = []
        for entry in self.entries:
            if (entry.section, entry.name) == (section, name):
                found = [*found, entry] if entry.value else []
        return found

    def names(self, section: str = "Service") -> list[str]:
        """The names of what is set, each once."""
        return list(dict.fromkeys(e.name for e in self.entries if e.section == section))


def settings(*files: tuple[str, str]) -> Settings:
    """(path, text) of the unit and of its drop-ins, in systemd's order -> Settings."""
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
            problems.append(f"{where}: {name.strip()}= stands outside of any section")
        else:
            entries.append(Entry(section, name.strip(_SPACE), value.strip(_SPACE), where))
    return entries, problems


def logical_lines(text: str) -> list[tuple[int, str]]:
    """(number of its first line, text) of every line that says something: comments out, continuations joined."""
    found: list[tuple[int, str]] = []
    begun, joined = 0, ""
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = raw.lstrip(_SPACE)
        if line.startswith(_COMMENT):  # also between two lines that belong together
            continue
        begun, joined = begun or number, joined + line.rstrip("\r")
        if _goes_on(joined):
            joined = joined[:-1] + " "
            continue
        found.append((begun, joined.strip(_SPACE)))
        begun, joined = 0, ""
    if begun:  # the file ends in a backslash
        found.append((begun, joined.strip(_SPACE)))
    return [(number, line) for number, line in found if line]


def _goes_on(line: str) -> bool:
    """Whether a line ends in a backslash that is not itself escaped."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def words(text: str) -> list[str]:
    """The words of a value: quotes taken off, escapes resolved.

    Raises:
        Unreadable: a quote is not closed.
    """
    found = []
    rest = text
    while (taken := _first_word(rest)) is not None:
        word, rest = taken
        found.append(word)
    return found


def _first_word(text: str) -> tuple[str, str] | None:
    """(the first word, what follows it), or None where there is none."""
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
    """What stands for the escape that `text` begins after its backslash, and how many characters it takes.

    systemd warns about one that it does not know, and keeps it as it is.
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
    """A value with its %-specifiers replaced; one that `table` (letter -> value) does not have stays as it is."""
    known = {"%": "%", **table}
    return re.sub(r"%(.)", lambda m: known.get(m[1], m[0]), text, flags=re.S)


def exec_lines(entry: Entry, table: Mapping[str, str]) -> list[ExecLine]:
    """The commands of one ExecStart= line; a lone semicolon stands between two.

    Raises:
        Unreadable: systemd would not take it.
    """
    found = []
    rest = entry.value
    while rest:
        taken = _first_word(rest)
        if taken is None:
            break
        first, rest = taken
        program = first.lstrip(_PREFIXES)
        prefixes = first[: len(first) - len(program)]
        if not program:
            raise Unreadable("it names no program")
        arguments, rest = _arguments(rest, table)
        # the word after @ is the program's argv[0]
        arguments = arguments[1:] if "@" in prefixes else arguments
        found.append(ExecLine(prefixes, (specified(program, table), *arguments), entry.where))
    return found


def _arguments(text: str, table: Mapping[str, str]) -> tuple[list[str], str]:
    """The words up to a lone semicolon, and what follows that."""
    found: list[str] = []
    rest = text
    while rest:
        if lone := re.match(r"(\\?);(?:\s+|$)", rest):
            rest = rest[lone.end() :]
            if not lone[1]:
                return found, rest
            found.append(";")
            continue
        taken = _first_word(rest)
        if taken is None:
            break
        found.append(specified(taken[0], table))
        rest = taken[1]
    return found, ""


def expanded(line: ExecLine, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The words that the program is started with: $NAME alone is split into words, ${NAME} is put in as it is.

    A word that begins with $ is a name to its end. Nothing is left of a name that has no value.
    """
    if not line.expands:
        return line.words
    found = [*line.words[:1]]
    for word in line.words[1:]:
        if word.startswith("$") and word[1:2] not in ("{", "$"):
            found += _split_leniently(environment.get(word[1:], ""))
        else:
            found.append(_put_in(word, environment))
    return tuple(found)


def _put_in(word: str, environment: Mapping[str, str]) -> str:
    """A word with its ${NAME} and $$ replaced; one that is not closed stays, with all that follows."""

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
    """Environment= -> (name -> value, name -> where it is set, what cannot be read)."""
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
                problems.append(f"{entry.where}: a word of Environment= is no NAME=VALUE")
    return values, places, problems


def flag(entry: Entry | None) -> bool:
    """What a yes or no of systemd says; no where it is unset."""
    return entry is not None and entry.value.lower() in ("1", "yes", "y", "true", "t", "on")


def drop_in_directories(unit: str) -> list[str]:
    """The names of the directories with drop-ins of a unit: its own, then those of its prefixes, then its type's."""
    stem, dot, kind = unit.rpartition(".")
    parts = stem.split("-")
    prefixes = ["-".join(parts[:n]) + "-" for n in range(len(parts) - 1, 0, -1)]
    return [f"{name}{dot}{kind}.d" for name in (stem, *prefixes)] + [f"{kind}.d"]


def in_order(directories: Sequence[str], listed: Callable[[str], Iterable[str]]) -> list[str]:
    """The drop-ins that count, in systemd's order: by file name; of one name only that of the first directory.

    `directories`: the most important first. `listed`: the file names in one of them.
    """
    chosen: dict[str, str] = {}
    for directory in directories:
        for name in listed(directory):
            if name.endswith(".conf"):
                chosen.setdefault(name, f"{directory}/{name}")
    return [chosen[name] for name in sorted(chosen)]
