"""Loads OptiLLM into this process: its strategies, its plugins and its defaults."""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import sys
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from . import fingerprints, logs, patches, stub_imports
from .invariants import NOT_OFFERED
from .settings import Refusal, Settings


def version() -> str:
    """The version of the installed OptiLLM."""
    return importlib.metadata.version("optillm")


def _arguments(settings: Settings) -> list[str]:
    # sys.argv stays inside this process: /proc/PID/cmdline has the reference to the key only
    arguments = ["optillm", "--host", settings.host, "--port", str(settings.port)]
    arguments += ["--base-url", settings.base_url, "--model", settings.model]
    if settings.approach != "auto":  # "auto" is OptiLLM's default and not among its choices
        arguments += ["--approach", settings.approach]
    return arguments


def words(server: ModuleType) -> set[str]:
    """The words that OptiLLM reads as strategies in model names."""
    return {*server.known_approaches, *server.plugin_approaches}


def strategies(server: ModuleType) -> set[str]:
    """The strategies that can run."""
    return words(server) - NOT_OFFERED.keys()


def load(settings: Settings) -> ModuleType:
    """Import OptiLLM, load its plugins and set its defaults. Returns its module `server`.

    `main()` of OptiLLM does the same and then serves; the guard serves instead.

    Raises:
        Refusal: the name of a base model looks like a strategy, or like several.
    """
    # the garbage collector would take a tenth of the time of 2000 imports, and find nothing
    gc.disable()
    with stub_imports.left_out(settings.strategies):
        server: Any = importlib.import_module("optillm.server")
    sys.argv = _arguments(settings)
    patches.apply(server)
    server.load_plugins()
    server.server_config.update(vars(server.parse_args()))
    server.cepo_config = server.init_cepo_config(server.server_config)
    gc.freeze()  # the loaded modules stay: the collector need not scan them
    gc.enable()
    _refuse_ambiguous(settings.base_models, words(server))
    _report_unknown(server, settings)
    return cast(ModuleType, server)


def _refuse_ambiguous(base_models: Collection[str], strategy_words: Collection[str]) -> None:
    for name in base_models:
        if name.partition("-")[0] in strategy_words or any(sign in name for sign in "&|"):
            raise Refusal(
                f"the name of the base model {name} begins with a strategy or has & or |: "
                "rename the base model"
            )


def _report_unknown(server: ModuleType, settings: Settings) -> None:
    """Log the parts of OptiLLM that no tested version has. A conformance run decides about them."""
    site_packages = Path(str(server.__file__)).parent.parent
    unknown = fingerprints.unknown(site_packages, settings.strategies)
    if unknown:
        logs.write("unverified", optillm=version(), parts=unknown)
