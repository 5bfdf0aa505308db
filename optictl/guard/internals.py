"""Fingerprints of the parts of OptiLLM that the guard's patches replace, wrap or use.

It reads the source files and imports nothing of OptiLLM. optictl also compares two releases with
it.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

#: file below site-packages -> names at its top level
RELIED_ON = {
    "optillm/server.py": (
        "get_config",
        "parse_combined_approach",
        "parse_conversation",
        "extract_optillm_approach",
        "check_api_key",
        "proxy",
        "proxy_models",
        "tagged_conversation_to_messages",
        "execute_single_approach",
        "execute_n_times",
        "load_plugins",
        "parse_args",
        "main",
    ),
    "optillm/plugins/proxy/client.py": ("ProxyClient",),
    "optillm/plugins/proxy/config.py": ("ProxyConfig",),
}

#: version -> the fingerprints with which the guard's tests passed
_0_3_12 = {
    "optillm/server.py:get_config": "de5aaa1624dd",
    "optillm/server.py:parse_combined_approach": "c0fffd7caeb6",
    "optillm/server.py:parse_conversation": "9fc3d9c15787",
    "optillm/server.py:extract_optillm_approach": "6c4a7d1be083",
    "optillm/server.py:check_api_key": "e1da9c37063a",
    "optillm/server.py:proxy": "f4ad798ca9e5",
    "optillm/server.py:proxy_models": "298600eafce9",
    "optillm/server.py:tagged_conversation_to_messages": "7ac182efe915",
    "optillm/server.py:execute_single_approach": "176c9382ded5",
    "optillm/server.py:execute_n_times": "d11e9c45e990",
    "optillm/server.py:load_plugins": "0dae2b7a7ecf",
    "optillm/server.py:parse_args": "2d37a4b11b73",
    "optillm/server.py:main": "c67edaf230a4",
    "optillm/plugins/proxy/client.py:ProxyClient": "2ac4b36a1c7b",
    "optillm/plugins/proxy/config.py:ProxyConfig": "606eac53908d",
}
VERIFIED: dict[str, dict[str, str]] = {
    "0.3.12": _0_3_12,
    "0.3.13": {
        **_0_3_12,
        "optillm/server.py:proxy": "86c549f79d03",
        "optillm/server.py:tagged_conversation_to_messages": "54305db7a720",
    },
}


def fingerprint(source: str) -> str:
    """The digest of a source text, 12 hex digits.

    It ignores empty lines and white space at line ends.
    """
    lines = (line.rstrip() for line in source.splitlines())
    return hashlib.sha256("\n".join(line for line in lines if line).encode()).hexdigest()[:12]


def _source(lines: Sequence[bytes], node: ast.stmt) -> str:
    """The source text of a definition.

    `ast.get_source_segment` would split the module every time.
    """
    assert node.end_lineno is not None
    *whole, last = lines[node.lineno - 1 : node.end_lineno]
    return b"".join([*whole, last[: node.end_col_offset]]).decode()


def sources(site_packages: Path) -> dict[str, str]:
    """The source texts: `optillm/server.py:main` -> text. "" for a missing definition."""
    found = {}
    for file, names in RELIED_ON.items():
        path = site_packages / file
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        lines = text.encode().splitlines(keepends=True)
        segments = {
            node.name: _source(lines, node)
            for node in ast.parse(text).body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and node.name in names
        }
        found.update({f"{file}:{name}": segments.get(name, "") for name in names})
    return found


def fingerprints(site_packages: Path) -> dict[str, str]:
    """The fingerprints: `optillm/server.py:main` -> fingerprint. "" for a missing definition."""
    return {
        name: fingerprint(text) if text else "" for name, text in sources(site_packages).items()
    }


def unknown(found: Mapping[str, str]) -> list[str]:
    """The parts whose fingerprint is not in any verified version."""
    return [
        name
        for name, seen in found.items()
        if all(known[name] != seen for known in VERIFIED.values())
    ]
