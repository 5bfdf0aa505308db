"""All faults, family by family."""

from __future__ import annotations

from tests.faults.around import HOST, ROUTING, UPSTREAM
from tests.faults.inside import BINDS, ENVIRONMENT, FILES, KEYS, PROVIDER_FILE
from tests.faults.supervised import PROCESS, RELEASE, UNIT_FAULTS

FAULTS = [*ENVIRONMENT, *BINDS, *KEYS, *PROVIDER_FILE, *FILES, *UNIT_FAULTS, *RELEASE, *PROCESS, *UPSTREAM, *ROUTING, *HOST]
