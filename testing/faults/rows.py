"""All faults, family by family."""

from __future__ import annotations

from testing.faults.around import HOST, ROUTING, UPSTREAM
from testing.faults.inside import BINDS, ENVIRONMENT, FILES, KEYS, PROVIDER_FILE
from testing.faults.supervised import PROCESS, RELEASE, UNIT_FAULTS

# faults that activate another copy of the release come last: a check reads all files of a new copy
FAULTS = [
    *ENVIRONMENT,
    *BINDS,
    *KEYS,
    *PROVIDER_FILE,
    *FILES,
    *UNIT_FAULTS,
    *UPSTREAM,
    *ROUTING,
    *HOST,
    *PROCESS,
    *RELEASE,
]
