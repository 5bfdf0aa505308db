"""The settings of uv that optictl keeps when it calls uv. Pure.

optictl decides what uv installs, and with which hashes. The machine and the user decide how uv
reaches an index: addresses, credentials, certificates, proxies, the cache. Setting names are those
of uv 0.9 to 0.13. Source: uv's crates uv-settings and uv-static.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    from tomllib import TOMLDecodeError, loads
else:
    from tomli import TOMLDecodeError, loads

Table = Mapping[str, Any]

#: Settings at the top of a file and in its `[pip]` table.
_INDEX = (
    "index",
    "index-url",
    "extra-index-url",
    "find-links",
    "index-strategy",
    "keyring-provider",
)
_TOP = (
    *_INDEX,
    *("allow-insecure-host", "native-tls", "system-certs", "http-proxy", "https-proxy", "no-proxy"),
    *("cache-dir", "no-cache", "concurrent-downloads"),
)
#: Lists that uv joins, with the entries of the first file first. Of any other setting, the value of
#: the first file counts.
_JOINED = {"index", "extra-index-url", "find-links", "allow-insecure-host", "no-proxy"}

_VARIABLES = {
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_INDEX_STRATEGY",
    "UV_KEYRING_PROVIDER",
    "UV_CREDENTIALS_DIR",
    "UV_INSECURE_HOST",
    "UV_NATIVE_TLS",
    "UV_SYSTEM_CERTS",
    "UV_CACHE_DIR",
    "UV_NO_CACHE",
    "UV_HTTP_TIMEOUT",
    "UV_HTTP_CONNECT_TIMEOUT",
    "UV_REQUEST_TIMEOUT",
    "UV_HTTP_RETRIES",
    "UV_LOCK_TIMEOUT",
    "UV_CONCURRENT_DOWNLOADS",
    "UV_COMPILE_BYTECODE_TIMEOUT",
    "UV_PYTHON_INSTALL_DIR",
    "UV_S3_ENDPOINT_URL",
    "UV_GCS_ENDPOINT_URL",
    "UV_AZURE_ENDPOINT_URL",
}
_INDEX_CREDENTIAL = re.compile(r"UV_INDEX_\w+_(USERNAME|PASSWORD)")
#: Variables of other programs: an active environment of the caller, or colours in the output.
_DROPPED = {
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "CONDA_DEFAULT_ENV",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONEXECUTABLE",
    "PYC_INVALIDATION_MODE",
    "FORCE_COLOR",
    "CLICOLOR_FORCE",
}
_TRUE = {"1", "true", "t", "yes", "y", "on"}


def parse_toml(text: str) -> dict[str, Any]:
    """The table in the text of a TOML file.

    Raises:
        ValueError: the text is not TOML. The message names line and column.
    """
    try:
        table: dict[str, Any] = loads(text)
    except TOMLDecodeError as error:
        raise ValueError(str(error)) from None
    return table


def kept_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for uv. Of the UV_* variables, it has those for indexes and interpreters."""

    def is_kept(name: str) -> bool:
        if name.startswith("UV_"):
            return name in _VARIABLES or _INDEX_CREDENTIAL.fullmatch(name) is not None
        return name not in _DROPPED

    kept = {name: value for name, value in environ.items() if is_kept(name)}
    return {**kept, "NO_COLOR": "1", "UV_PYTHON_DOWNLOADS": "never"}


def config_places(environ: Mapping[str, str], home: Path) -> list[list[Path]]:
    """The files where uv looks for settings, as lists.

    Of each list, uv reads the first file that exists. Values from an earlier list win.
    """
    if environ.get("UV_CONFIG_FILE"):
        return [[Path(environ["UV_CONFIG_FILE"])]]
    if environ.get("UV_NO_CONFIG", "").lower() in _TRUE:
        return []
    config = environ.get("XDG_CONFIG_HOME", "")
    user = Path(config) if config.startswith("/") else home / ".config"
    system = [
        Path(place) / "uv/uv.toml"
        for place in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
        if place
    ]
    places = [[user / "uv/uv.toml"], [*system, Path("/etc/uv/uv.toml")]]
    return places[:1] if environ.get("UV_NO_SYSTEM_CONFIG", "").lower() in _TRUE else places


def anchored(table: Table, directory: Path) -> dict[str, Any]:
    """The same settings with absolute paths: uv reads them relative to the file's directory."""

    def whole(value: Any) -> Any:
        if isinstance(value, list):
            return [whole(item) for item in value]
        if isinstance(value, Mapping):
            return {**value, "url": whole(value["url"])} if "url" in value else dict(value)
        if not isinstance(value, str) or re.match(r"[A-Za-z][\w+.-]*:|/|~|\$", value):
            return value
        return str(directory / value)

    paths = {"index", "index-url", "extra-index-url", "find-links"}
    settings = {name: whole(value) if name in paths else value for name, value in table.items()}
    if isinstance(table.get("pip"), Mapping):
        settings["pip"] = anchored(table["pip"], directory)
    return settings


def kept_settings(tables: Sequence[Table]) -> str:
    """The text of a uv.toml with the kept settings of several tables, highest priority first.

    `no-index` is kept only together with `find-links`: a directory then replaces the index. Without
    one, uv could not install anything.
    """
    kept = _joined([_kept(table, _TOP) for table in tables])
    pips = [table["pip"] for table in tables if isinstance(table.get("pip"), Mapping)]
    pip = _joined([_kept(table, _INDEX) for table in pips])
    if "find-links" in kept or "find-links" in pip:
        for settings, sources in ((kept, tables), (pip, pips)):
            if any(table.get("no-index") is True for table in sources):
                settings["no-index"] = True
    lines = [f"{name} = {_toml(value)}\n" for name, value in kept.items()]
    if pip:
        lines += ["\n[pip]\n", *(f"{name} = {_toml(value)}\n" for name, value in pip.items())]
    return "".join(lines)


def _kept(table: Table, names: Sequence[str]) -> dict[str, Any]:
    return {name: table[name] for name in names if name in table}


def _joined(tables: Sequence[Table]) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for table in tables:
        for name, value in table.items():
            if name not in joined:
                joined[name] = value
            elif name in _JOINED and isinstance(joined[name], list) and isinstance(value, list):
                joined[name] = [*joined[name], *value]
    return joined


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Mapping):
        return (
            f"{{{', '.join(f'{_toml(str(key))} = {_toml(item)}' for key, item in value.items())}}}"
        )
    if isinstance(value, int | float):
        return str(value)
    # a JSON string is a valid TOML string, except for one character
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def pip_variables(tables: Sequence[Table], environ: Mapping[str, str]) -> dict[str, str]:
    """The index settings of uv as variables of pip. Only those that uv has, a variable first.

    The value of a variable of pip may be a list with spaces.
    """
    kept = _joined([_kept(table, _TOP) for table in tables])
    named = [entry for entry in kept.get("index", []) if isinstance(entry, Mapping)]
    defaults = [entry["url"] for entry in named if entry.get("default") is True]
    others = [entry["url"] for entry in named if entry.get("default") is not True]
    default = (
        environ.get("UV_DEFAULT_INDEX")
        or environ.get("UV_INDEX_URL")
        or next(iter([*defaults, kept.get("index-url")]), None)
    )
    more = [
        *(word.partition("=")[2] if _NAMED.match(word) else word for word in _words(environ)),
        *others,
        *kept.get("extra-index-url", []),
    ]
    links = [*environ.get("UV_FIND_LINKS", "").split(","), *kept.get("find-links", [])]
    variables = {
        "PIP_INDEX_URL": default,
        "PIP_EXTRA_INDEX_URL": " ".join(more),
        "PIP_FIND_LINKS": " ".join(filter(None, links)),
        "PIP_NO_INDEX": "1" if links[1:] and any(t.get("no-index") is True for t in tables) else "",
    }
    return {name: value for name, value in variables.items() if value}


#: An index with a name, as UV_INDEX has it: `internal=https://...`
_NAMED = re.compile(r"[\w.-]+=")


def _words(environ: Mapping[str, str]) -> list[str]:
    """The addresses of further indexes in uv's variables."""
    return [*environ.get("UV_INDEX", "").split(), *environ.get("UV_EXTRA_INDEX_URL", "").split()]


def redacted(text: str) -> str:
    """The text without user names and passwords in URLs."""
    return re.sub(r"://[^\s/]*@", "://", text)


#: Causes for which a caller may have a better fix.
FULL = "the disk is full"
UNREACHABLE = "the index cannot be reached"
NO_WHEEL = "a package has no wheel for this Python and machine"
NOT_THERE = "the index does not have a package of the lock"
OTHER_HASH = "a downloaded file does not have the hash in the lock"
#: Known failures of uv and pip: a pattern for the output, the cause, the fix. The first match
#: counts.
_CAUSES = (
    (
        r"No space left on device|Disk quota exceeded",
        FULL,
        "free space on the file system that the message names: a release needs 400 MB, uv's cache "
        "as much again",
    ),
    (
        r"(?i)initialize cache|uv/[^\n]*(Permission denied|Read-only file system)",
        "uv cannot write its cache",
        "make the directory in the message writable, or set another cache-dir in /etc/uv/uv.toml",
    ),
    (
        r"(?i)hash mismatch|do not match the hashes",
        OTHER_HASH,
        "check the index in uv.toml: it serves a file that differs from the locked one; "
        "or install from a directory with --wheelhouse DIR",
    ),
    (
        r"(?i)certificate",
        "the index's certificate is not trusted",
        "add its certificate authority to the system's certificates, and set system-certs = true "
        "in /etc/uv/uv.toml",
    ),
    (
        r"(?i)401 Unauthorized|403 Forbidden|valid authentication credentials",
        "the index requires credentials",
        "add user and password to the index URL in uv.toml (mode 0600), or to ~/.netrc",
    ),
    (
        r"(?i)error sending request|dns error|Connect|connection|timed out|Temporary failure|"
        r"Failed to fetch",
        UNREACHABLE,
        "check the network, and index and https-proxy in /etc/uv/uv.toml; or install offline with "
        "--wheelhouse DIR",
    ),
    (
        r"(?i)no usable wheels|no wheels? |only has wheels|doesn't have a (source|wheel)",
        NO_WHEEL,
        "choose another interpreter with --python PATH",
    ),
    (
        r"(?i)was not found in|no version of|No matching distribution",
        NOT_THERE,
        "check the index in uv.toml, or the directory given with --wheelhouse",
    ),
)


def cause(output: str) -> tuple[str, str]:
    """The cause and the fix for an output of uv or pip. Both are "" for an unknown failure."""
    return next(
        ((words, remedy) for pattern, words, remedy in _CAUSES if re.search(pattern, output)),
        ("", ""),
    )
