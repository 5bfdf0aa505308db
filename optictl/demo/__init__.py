"""The embedded default: a stand-in for LiteLLM, and the demonstration that runs on it."""
