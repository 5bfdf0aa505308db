"""docs/reference/error-codes.md from `optictl.errors`; `python -m scripts.docs` writes it."""

from __future__ import annotations

import inspect
from pathlib import Path

from optictl import errors
from optictl.errors import OptictlError

PAGE = Path(__file__).resolve().parent.parent / "docs/reference/error-codes.md"
_HEAD = """\
# Error codes

`python -m scripts.docs` writes this page from the code.

With `--output json`, a command that fails prints one envelope with an `error` object:

```json
{"schema": 1, "command": "smoke", "status": "failed", "results": [],
 "error": {"code": "unknown-model", "what": "...", "remedy": "..."}}
```

`code` is one of the codes below and never changes. `what` and `remedy` are sentences for people and
may change. `problems`, where it is there, lists several problems. `optictl schema envelope` prints
the JSON Schema of the envelope.

| code | exit code | what happened | fix |
|---|---|---|---|
"""


def _row(error: type[OptictlError]) -> str:
    happened, _, fix = (inspect.getdoc(error) or "").partition("Fix:")
    words = [" ".join(text.split()) for text in (happened, fix)]
    fix = words[1][:1].upper() + words[1][1:]
    return f"| `{error.code}` | {error.exit_code} | {words[0]} | {fix} |\n"


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(_row(error) for error in errors.classes())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
