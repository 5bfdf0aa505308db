"""The mark of a request by which optictl checks that the door is locked.

`optictl check` asks without a key and expects 401, every minute with the timer. The mark says that
the refusal is not worth a line in the log. Only a holder of the proxy key can make one.
"""

from __future__ import annotations

import hashlib
import hmac
import time

#: The header of the mark.
HEADER = "x-optillm-probe"
#: Seconds for which a mark is valid.
_VALID = 60.0


def mark(key: str, now: float | None = None) -> str:
    """The value of the header: the time, and a signature of it."""
    moment = str(int(time.time() if now is None else now))
    return f"{moment}:{_sign(key, moment)}"


def is_valid(value: str, key: str, now: float | None = None) -> bool:
    """Whether a value was made with this key, within the last minute."""
    moment, _, signature = value.partition(":")
    if not (moment.isascii() and moment.isdigit() and len(moment) < 16):
        return False
    age = (time.time() if now is None else now) - int(moment)
    return abs(age) <= _VALID and hmac.compare_digest(
        signature.encode("utf-8", "replace"), _sign(key, moment).encode()
    )


def _sign(key: str, moment: str) -> str:
    text = f"optillm health probe {moment}"
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()[:32]
