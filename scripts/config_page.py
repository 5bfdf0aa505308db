"""docs/reference/configuration.md from the model of optictl.yaml, for `python -m scripts.docs`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optictl.deployment import config

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/reference/configuration.md"
SCHEMA = ROOT / "templates/optictl.schema.json"
_HEAD = """\
# Configuration

`python -m scripts.docs` writes this page from the model that validates the file. `man optictl.yaml`
has the same text.

`optictl.yaml` describes one deployment. `optictl init` writes it with comments. It lies in
`/etc/optillm-proxy` for the system, in `~/.config/optillm-proxy` with `--user`, and in
`DIR/etc/optillm-proxy` with `--root DIR`; `--config PATH` names another file.

optictl validates the whole file and reports every problem at once, each with its key and line. An
unknown key is a problem. The exit code of an invalid file is 78. An absent key has its default.

- `optictl config show` prints the configuration with all defaults.
- `optictl config schema` prints the JSON Schema. The first line of the file that `init` writes,
  `# yaml-language-server: $schema=...`, names the schema that is installed with optictl: editors
  then complete keys and values and show their meaning. On another machine, save the schema beside
  the file and write `$schema=optictl.schema.json`.

Run `optictl install` after each change: it shows what the change does and applies it.
"""


@dataclass(frozen=True)
class Key:
    """One key of the file, by its dotted path."""

    path: str
    kind: str
    default: str
    text: str


@dataclass(frozen=True)
class Section:
    """The keys of one section; the first has no name and holds those of the top level."""

    name: str
    text: str
    keys: tuple[Key, ...]


def _kind(schema: dict[str, Any]) -> str:
    """What may stand there."""
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    kinds = {
        "string": "text",
        "integer": "number",
        "boolean": "true or false",
        "null": "null",
        "array": "list of text",
        "object": "mapping" if "properties" in schema else "mapping of text to text",
    }
    kind = kinds[schema["type"]]
    if "minimum" in schema and "maximum" in schema:
        return f"{schema['minimum']} to {schema['maximum']}"
    return kind


def _written(value: Any) -> str:
    """A default as YAML has it."""
    return value if isinstance(value, str) else json.dumps(value)


def _key(path: str, schema: dict[str, Any]) -> Key:
    return Key(path, _kind(schema), _written(schema.get("default")), schema["description"])


def sections() -> Iterator[Section]:
    """The keys of the top level, then every section, in the order of the file.

    Raises:
        KeyError: a key has no description.
    """
    whole = config.schema()
    top = []
    below = []
    for name, schema in whole["properties"].items():
        if "$ref" not in schema:
            top.append(_key(name, schema))
            continue
        section = whole["$defs"][schema["$ref"].rpartition("/")[2]]
        keys = tuple(_key(f"{name}.{k}", s) for k, s in section["properties"].items())
        below.append(Section(name, section["description"], keys))
    yield Section("", whole["description"], tuple(top))
    yield from below


def _table(keys: tuple[Key, ...]) -> str:
    lines = ["| Key | Value | Default | Meaning |", "|---|---|---|---|"]
    lines += [f"| `{k.path}` | {k.kind} | `{k.default}` | {k.text} |" for k in keys]
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    parts = [_HEAD.rstrip()]
    for section in sections():
        parts += [f"## `{section.name}`" if section.name else "## Top level"]
        parts += [section.text] if section.name else []
        parts += [_table(section.keys)]
    return "\n\n".join(parts) + "\n"


def schema() -> str:
    """templates/optictl.schema.json: what `optictl config schema` prints."""
    return f"{json.dumps(config.schema(), indent=2, ensure_ascii=False)}\n"
