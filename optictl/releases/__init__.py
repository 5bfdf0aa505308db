"""Releases: the pinned OptiLLM, built from a lock into its own directory."""
