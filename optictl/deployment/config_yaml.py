"""The text of optictl.yaml: read as a configuration, or edited.

All problems of a file are reported at once, each with its key and line.
"""

from __future__ import annotations

import reprlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from optictl.deployment.config import Config, suggest
from optictl.errors import ConfigError, ConfigNotEdited, Problem

if TYPE_CHECKING:
    import yaml


def _known_keys(path: tuple[Any, ...]) -> list[str]:
    """The keys that are allowed in the section at `path`."""
    section: Any = Config
    for step in path:
        field = (
            section.model_fields.get(step)
            if isinstance(section, type) and issubclass(section, BaseModel)
            else None
        )
        if field is None:
            return []
        section = field.annotation
    return (
        list(section.model_fields)
        if isinstance(section, type) and issubclass(section, BaseModel)
        else []
    )


def _lines(
    node: yaml.Node | None, path: tuple[Any, ...] = ()
) -> tuple[dict[tuple[Any, ...], int], list[Problem]]:
    """The line numbers of the keys and items in a YAML tree, and problems for duplicate keys."""
    import yaml

    lines: dict[tuple[Any, ...], int] = {}
    problems: list[Problem] = []
    children: list[tuple[Any, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, value in node.value:
            if key.value in names:
                dotted = ".".join(map(str, (*path, key.value)))
                problems.append(Problem(dotted, key.start_mark.line + 1, "is twice in the file"))
            names.add(key.value)
            children.append((key.value, key, value))
    elif isinstance(node, yaml.SequenceNode):
        children = [(index, value, value) for index, value in enumerate(node.value)]
    for step, anchor, value in children:
        place = (*path, step)
        lines[place] = anchor.start_mark.line + 1
        if len(path) < _DEPTH:  # no key is deeper, and YAML aliases may be circular
            below, wrong = _lines(value, place)
            lines.update(below)
            problems += wrong
    return lines, problems


#: The configuration has no key below this depth.
_DEPTH = 3

#: pydantic's error types -> messages for authors of YAML.
_WORDS = {
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "string_type": "must be text (quote it when YAML reads it as something else)",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "int_parsing": "must be a whole number",
    "invalid_key": "must be text",
}


def _plain(message: str) -> str:
    """pydantic's message in other words, where its type has none above."""
    for theirs, ours in (
        ("Input should be greater than or equal to", "must be at least"),
        ("Input should be less than or equal to", "must be at most"),
        ("Input should be greater than", "must be more than"),
        ("Input should be less than", "must be less than"),
        ("Input should", "must"),
    ):
        message = message.replace(theirs, ours)
    return f"{message[:1].lower()}{message[1:]}"


def _problems(error: Any, lines: dict[tuple[Any, ...], int]) -> list[Problem]:
    path = tuple(error["loc"])
    if len(path) > 1 and path[-1] == "[key]":  # pydantic means the key here, not its value
        path = path[:-1]
    kind = error["type"]
    if kind == "several":
        return [
            Problem(*_place((*path, *_steps(place)), lines), text)
            for place, text in error["ctx"]["problems"]
        ]
    message = error["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        message = f"unknown key{suggest(str(path[-1]), _known_keys(path[:-1]))}"
    elif kind not in ("value_error", "missing"):
        words = _WORDS.get(kind) or _plain(message)
        message = f"{words}, not {_short(error.get('input'))}"
    return [Problem(*_place(path, lines), message)]


def _steps(place: Any) -> tuple[Any, ...]:
    """The steps to a place: of an item, of a path of keys, or none."""
    if place is None:
        return ()
    return place if isinstance(place, tuple) else (place,)


def _place(path: tuple[Any, ...], lines: dict[tuple[Any, ...], int]) -> tuple[str, int | None]:
    """The path with dots, and the line of its deepest part that is in the file."""
    line = next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), None)
    return ".".join(map(str, path)), line


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    try:
        return reprlib.repr(value)
    except ValueError:  # Python does not print an integer with thousands of digits
        return "a very large number"


def _read_yaml(text: str, source: str) -> tuple[yaml.Node | None, Any]:
    """The text as YAML: with the places of its values, and as data."""
    import yaml  # a fast command without a configuration file does not need it

    line: int | None = None
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else None
        why = getattr(error, "problem", None) or "cannot be read"
    except RecursionError:
        why = "nested too deep"
    except (ValueError, OverflowError) as error:  # 2024-13-45, which PyYAML lets through
        why = str(error)
    raise ConfigError(source, [Problem("", line, f"not valid YAML: {why}")])


def parse(text: str, source: str) -> Config:
    """The configuration in a YAML text. An empty text means the defaults.

    Raises:
        ConfigError: the text is not valid. It lists every problem; `source` names the file.
    """
    node, data = _read_yaml(text, source)
    if data is None:
        return Config()
    if not isinstance(data, dict):
        raise ConfigError(source, [Problem("", 1, "must be a mapping of keys to values")])
    lines, problems = _lines(node)
    try:
        config = Config.model_validate(data)
    except ValidationError as invalid:
        problems += [
            problem
            for error in invalid.errors(include_url=False)
            for problem in _problems(error, lines)
        ]
    if problems:
        raise ConfigError(source, sorted(problems, key=lambda p: (p.line or 0, p.path)))
    return config


def with_version(text: str, source: str, version: str) -> str:
    """The text of an optictl.yaml with another `optillm.version`. Nothing else in it changes.

    Raises:
        OptictlError: the version cannot be replaced safely in this text.
    """
    config = parse(text, source)
    changed = config.model_copy(
        update={"optillm": config.optillm.model_copy(update={"version": version})}
    )
    if config == changed:
        return text
    edited = _edited_version(text, version)
    with suppress(ConfigError):
        if parse(edited, source) == changed:
            return edited
    raise ConfigNotEdited(
        f"optictl cannot set optillm.version in {source}",
        remedy=f"set it to {version} by hand, then run the command again",
    )


def _edited_version(text: str, version: str) -> str:
    """The text with the version where YAML has it, or in the place for it. It may not be valid."""
    import yaml

    sections = {
        key.value: value
        for key, value in (
            yaml.compose(text, Loader=yaml.SafeLoader) or yaml.MappingNode("", [])
        ).value
    }
    optillm = sections.get("optillm")
    values = (
        {key.value: (key, value) for key, value in optillm.value}
        if isinstance(optillm, yaml.MappingNode)
        else {}
    )
    word = version if isinstance(yaml.safe_load(version), str) else f'"{version}"'
    if "version" in values:
        mark = values["version"][1]
        return text[: mark.start_mark.index] + word + text[mark.end_mark.index :]
    if values:
        first = next(iter(values.values()))[0].start_mark
        between = ", " if optillm is not None and optillm.flow_style else "\n" + " " * first.column
        return f"{text[: first.index]}version: {word}{between}{text[first.index :]}"
    return f"{text.rstrip()}\n\noptillm:\n  version: {word}\n" if optillm is None else text
