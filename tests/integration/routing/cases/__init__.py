"""LiteLLM configurations as data, each with what its author says of it; test_reality compares."""

from . import entries, fallbacks, names, settings, spellings

CASES = [
    *entries.CASES,
    *fallbacks.CASES,
    *names.CASES,
    *spellings.CASES,
    *settings.CASES,
]
