"""The walk through the quick start on other systems, and the matrix of its results."""
