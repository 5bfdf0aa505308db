"""Faults of a deployment: how each is provoked, found and fixed."""
