"""Requests to a running deployment: smoke, trace, compare."""
