"""A fresh proxy key, the bearer that LiteLLM sends."""

from __future__ import annotations

import secrets


def new_proxy_key() -> str:
    """256 random bits. The word in front keeps it from ever beginning with sk-."""
    return f"optillm-{secrets.token_urlsafe(32)}"
