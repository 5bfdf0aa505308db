"""The generated parts of docs/reference/http-api.md, and the OpenAPI description beside it."""

from __future__ import annotations

import json
from dataclasses import replace

from optictl.guard import openapi
from optictl.guard.statuses import COOLING
from testing.litellm_statuses import TREATMENTS, Treatment
from testing.support import ROOT

PAGE = ROOT / "docs/reference/http-api.md"
DESCRIPTION = ROOT / "docs/reference/openapi.json"


def statuses() -> str:
    """The table of what LiteLLM does with the statuses of a deployment: equal ones in one row."""
    rows: dict[Treatment, list[int]] = {}
    for status, treatment in TREATMENTS.items():
        is_same = treatment.client == status
        row = replace(treatment, client=0) if is_same else treatment
        rows.setdefault(row, []).append(status)
    lines = [
        "| Statuses | LiteLLM's client gets | Requests | Alone, it cools down | Both of two do |",
        "|---|---|---|---|---|",
    ]
    for treatment, equal in sorted(rows.items(), key=lambda row: row[1][0]):
        client = "the same" if treatment.client == 0 else str(treatment.client)
        cools = [("no", "yes")[cool] for cool in (treatment.cools, treatment.cools_two)]
        named = ", ".join(f"**{s}**" if s in COOLING else str(s) for s in equal)
        lines.append(f"| {named} | {client} | {treatment.tries} | {cools[0]} | {cools[1]} |")
    return "\n".join(lines)


def description() -> str:
    """The description without the names of a service."""
    return json.dumps(openapi.document(), indent=2) + "\n"
