"""Write the entries of strategy models into the text of a LiteLLM configuration. Pure.

The entries stand in one block between two comments, which the next merge replaces. Nothing outside
of it changes: the result is parsed, and must be the old data with the entries of the block.
"""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from optictl.errors import InvalidFile

#: As it is in files that were merged before: it is not reworded.
BEGIN = "# begin of optictl's strategy models: `optictl render-litellm --merge` replaces this block"
END = "# end of optictl's strategy models"
#: A line of YAML with a value that a diff must not show, unless it is a reference.
_SECRET = re.compile(
    r"(?P<key>[\w-]*(?:key|secret|token|password|credential|dsn|_url)[\w-]*[\"']?\s*:\s*)"
    r"(?!\s*[\"']?os\.environ/)(?P<value>\S.*)",
    re.I,
)
_NOT_SECRET = re.compile(r"[\w-]*(cost_per|token_cost|max_tokens|_tokens)[\w-]*\s*:", re.I)


@dataclass(frozen=True)
class Kept:
    """An entry of the user with the name of a strategy model. It stays, and no other is added.

    `place`: file and line.
    """

    name: str
    place: str


@dataclass(frozen=True)
class Merged:
    """The text of a configuration before and after a merge."""

    old: str
    new: str
    kept: tuple[Kept, ...]

    def diff(self, file: str) -> str:
        """The change as a unified diff, without the values of keys and passwords."""
        old, new = (text.splitlines(keepends=True) for text in (self.old, self.new))
        lines = difflib.unified_diff(old, new, file, file)
        return "".join(map(_without_secret, lines))


def _without_secret(line: str) -> str:
    if line.startswith(("---", "+++")) or _NOT_SECRET.search(line):
        return line
    end = line[len(line.rstrip("\r\n")) :]
    return _SECRET.sub(r"\g<key>(not shown)", line.rstrip("\r\n")) + end


def merged(text: str, rendered: str, file: str, included: Mapping[str, str] = {}) -> Merged:
    """A configuration with the entries of `rendered`, the text of `render litellm`.

    `included`: the names of entries in files that it includes -> their places.

    Raises:
        InvalidFile: the entries cannot be written into this text safely.
    """
    begin_of_file = "\ufeff" if text.startswith("\ufeff") else ""
    plain = text.removeprefix("\ufeff")
    place = _block(plain, file)
    without = plain[: place[0]] + plain[place[1] :] if place else plain
    own = _data(without, file)
    entries = entries_of(rendered)
    above = plain[slice(*place)].count("\n") if place else 0
    kept = {**_kept(without, own, entries, file, (place[0] if place else 0, above)), **included}
    kept = {name: where for name, where in kept.items() if name in entries}
    entries = {name: entry for name, entry in entries.items() if name not in kept}
    if not entries:
        new = without
    elif place and _entries(own):
        line = plain[place[0] :]
        indent = line[: len(line) - len(line.lstrip(" "))]
        block = _block_text(entries, indent, _newline(plain))
        new = plain[: place[0]] + block + plain[place[1] :]
    else:
        new = _inserted(without, entries, file)
    if not _is_the_same(own, new, list(entries.values())):
        raise _unusable(file, "its model_list has a form in which entries cannot be added safely")
    return Merged(
        text,
        begin_of_file + new,
        tuple(Kept(name, where) for name, where in kept.items()),
    )


def entries_of(rendered: str) -> dict[str, str]:
    """The entries of a rendered model_list: name -> text, from the first column."""
    block = textwrap.dedent(rendered.partition("\nmodel_list:\n")[2])
    texts = [f"- {part}" for part in re.split(r"^- ", block, flags=re.M)[1:]]
    return {yaml.safe_load(text)[0]["model_name"]: text for text in texts}


def _unusable(file: str, why: str) -> InvalidFile:
    return InvalidFile(
        f"optictl cannot merge into {file}: {why}",
        remedy="optictl render litellm > optillm.yaml beside it, and write "
        f"`include: [optillm.yaml]` into {file}",
    )


def _block(text: str, file: str) -> tuple[int, int] | None:
    """Begin and end of the block of an earlier merge, with its comments. None without one."""
    begins, ends = (
        list(re.finditer(rf"^[ \t]*{re.escape(mark)}[ \t]*(?:\r?\n|\Z)", text, re.M))
        for mark in (BEGIN, END)
    )
    if not begins and not ends:
        return None
    if len(begins) != 1 or len(ends) != 1 or begins[0].start() > ends[0].start():
        raise _unusable(file, "the comments around optictl's block are not one pair")
    return begins[0].start(), ends[0].end()


def _data(text: str, file: str) -> dict[Any, Any]:
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else file
        why = getattr(error, "problem", None) or error
        raise InvalidFile(f"{where}: not valid YAML: {why}", remedy=f"correct {where}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InvalidFile(
            f"{file}: must be a mapping of keys to values", remedy="name LiteLLM's configuration"
        )
    return data


def _entries(data: dict[Any, Any]) -> list[Any]:
    entries = data.get("model_list")
    return entries if isinstance(entries, list) else []


def _kept(
    text: str,
    data: dict[Any, Any],
    names: Collection[str],
    file: str,
    block: tuple[int, int],
) -> dict[str, str]:
    """The user's entries with the name of a strategy model, each with its place.

    `text`: without the block. `block`: where it was, and how many lines it had.
    """
    value = _model_list(text, file)
    nodes = value.value if isinstance(value, yaml.SequenceNode) else []
    kept: dict[str, str] = {}
    for node, entry in zip(nodes, _entries(data), strict=False):
        name = entry.get("model_name") if isinstance(entry, dict) else None
        if isinstance(name, str) and name in names:
            begin, lines = block
            line = node.start_mark.line + (lines if node.start_mark.index >= begin else 0)
            kept.setdefault(name, f"{file}:{line + 1}")
    return kept


def _model_list(text: str, file: str) -> yaml.Node | None:
    """The value of the key model_list, or None without the key."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        return None
    values = [value for key, value in root.value if key.value == "model_list"]
    if len(values) > 1:
        raise _unusable(file, "model_list is twice in it, and LiteLLM reads only the last one")
    return values[0] if values else None


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _block_text(entries: dict[str, str], indent: str, newline: str) -> str:
    block = textwrap.indent(f"{BEGIN}\n{''.join(entries.values())}{END}\n", indent)
    return block.replace("\n", newline)


def _inserted(text: str, entries: dict[str, str], file: str) -> str:
    """The text with a block of entries at the end of model_list."""
    newline = _newline(text)
    if text and not text.endswith("\n"):
        text += newline
    value = _model_list(text, file)
    if value is None:
        gap = newline if text.strip() else ""
        return f"{text}{gap}model_list:{newline}{_block_text(entries, '  ', newline)}"
    is_empty = not value.value or (value.tag == "tag:yaml.org,2002:null")
    if isinstance(value, yaml.SequenceNode) and not value.flow_style:
        at, indent = _after(value, text), " " * value.start_mark.column
    elif is_empty:
        start, end = value.start_mark.index, value.end_mark.index
        before = text[:start].rstrip(" ") if start < end else text[:start]
        text = before + text[end:]
        at, indent = _next_line(text, len(before)), "  "
    else:
        raise _unusable(file, "its model_list is written in one line, with brackets")
    return text[:at] + _block_text(entries, indent, newline) + text[at:]


def _next_line(text: str, index: int) -> int:
    """Where the line after that of `index` begins."""
    return text.find("\n", index) + 1 or len(text)


def _after(sequence: yaml.Node, text: str) -> int:
    """Where the line after the last part of this sequence begins. Comments behind it do not count.

    The nodes do not tell it: that of an alias is where its anchor is.
    """
    depth, end = 0, int(sequence.end_mark.index)
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        first, last = event.start_mark, event.end_mark
        if first is None or last is None:
            continue
        if not depth and first.index != sequence.start_mark.index:
            continue
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
            if not depth:
                break
        if first.index < last.index:  # the end of a block is no text
            end = int(last.index)
            # a block scalar ends where the next line begins
            is_block = isinstance(event, yaml.ScalarEvent) and event.style in ("|", ">")
            end = end if is_block and text[:end].endswith("\n") else _next_line(text, end)
    return end


def _is_the_same(own: dict[Any, Any], text: str, entries: list[str]) -> bool:
    """Whether the data of a merged text are the old ones with these entries, and nothing else."""
    try:
        new = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        return False
    if not isinstance(new, dict):
        return not own and not entries
    added = [yaml.safe_load(entry)[0] for entry in entries]
    rest = list(_entries(new))
    for entry in added:
        if entry in rest:
            rest.remove(entry)
    others = [{k: v for k, v in data.items() if k != "model_list"} for data in (own, new)]
    complete = len(_entries(new)) == len(rest) + len(added)
    return complete and rest == _entries(own) and others[0] == others[1]
