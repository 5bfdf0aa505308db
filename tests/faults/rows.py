"""All faults, family by family."""

from __future__ import annotations

from tests.faults.around import ROUTING
from tests.faults.inside import ENVIRONMENT, FILES

FAULTS = [*ENVIRONMENT, *FILES, *ROUTING]
