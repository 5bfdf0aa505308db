"""A release started on a free port, and what its answers prove."""
