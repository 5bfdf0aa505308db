"""The entries of strategy models for LiteLLM, with prices, and LiteLLM's file that gets them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from optictl.deployment import render as rendering
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import InvalidFile, PlanChanged
from optictl.host import files
from optictl.litellm import merge, prices, read

#: LiteLLM's price map in its package.
_MAP = "site-packages/litellm/model_prices_and_context_window_backup.json"


@dataclass(frozen=True)
class Change:
    """What a merge would write. `path`: the file itself, where a link leads to it."""

    path: Path
    raw: bytes
    merged: merge.Merged
    diff: str

    @property
    def is_needed(self) -> bool:
        return self.merged.old != self.merged.new


def named(config: Config, config_path: Path) -> Path | None:
    """LiteLLM's configuration that optictl.yaml names, if there is such a file."""
    path = config_path.parent / config.litellm.config if config.litellm.config else None
    return path if path is not None and path.exists() else None


def render(config: Config, paths: Paths, source: Path | None, price_map: Path | None) -> str:
    """The file for LiteLLM to include, with the prices of the base models that are known.

    `source`: LiteLLM's configuration.

    Raises:
        InvalidFile: a file that was named cannot be used.
    """
    settings = _settings(source) if source is not None else None
    known = (
        prices.of_base_models(settings, config.base_models, _price_map(price_map))
        if settings is not None
        else {}
    )
    return rendering.litellm(config, paths, known)


def plan(
    config: Config, paths: Paths, target: Path, source: Path, price_map: Path | None
) -> Change:
    """What a merge into `target` would write. `source`: the configuration with the prices.

    Raises:
        InvalidFile: there is no such file, or the entries cannot be written into it.
    """
    path = target.resolve()
    raw = files.read_bytes(path)
    if raw is None:
        raise InvalidFile(f"{target} does not exist", remedy=f"optictl render litellm > {target}")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidFile(f"{target} is not UTF-8 text", remedy=f"save {target} as UTF-8") from None
    rendered = render(config, paths, source, price_map)
    included = {
        entry.name: str(entry.place)
        for entry in _settings(target).entries
        if entry.place.file != str(target)
    }
    merged = merge.merged(text, rendered, str(target), included)
    return Change(path, raw, merged, merged.diff(str(target)))


def write(change: Change) -> Path | None:
    """Write a merged file, with the mode and the owner of the old one.

    Returns the old file's second name, if the merge replaced entries of an earlier one.

    Raises:
        PlanChanged: the file is another one by now.
    """
    path = change.path
    if files.read_bytes(path) != change.raw:
        raise PlanChanged(f"{path} has changed since the diff", remedy="run the command again")
    facts = files.file_facts(path)
    is_replaced = merge.BEGIN in change.merged.old
    aside = files.keep_aside(path, "optictl-old") if is_replaced else None
    files.write(path, change.merged.new, facts.mode)
    files.set_owners(path, facts.uid, facts.gid)
    return aside


def _settings(path: Path) -> read.Settings:
    try:
        return read.load(str(path), lambda name: files.read(Path(name)), None)
    except read.Unusable as unusable:
        raise InvalidFile("; ".join(unusable.problems), remedy=f"correct {path}") from None


def _price_map(stated: Path | None) -> prices.PriceMap | None:
    """LiteLLM's price map: the stated file, or that of the litellm on the PATH."""
    path = stated or _installed_map()
    text = files.read(path) if path is not None else None
    try:
        models = json.loads(text) if text is not None else None
    except ValueError:
        models = None
    if isinstance(models, dict) and path is not None:
        return prices.PriceMap(models, str(path))
    if stated is not None:
        raise InvalidFile(
            f"{stated} is not a price map",
            remedy="name LiteLLM's model_prices_and_context_window.json",
        )
    return None


def _installed_map() -> Path | None:
    program = shutil.which("litellm")
    if program is None:
        return None
    libraries = Path(program).resolve().parent.parent / "lib"
    return next(iter(sorted(libraries.glob(f"python3*/{_MAP}"))), None)
