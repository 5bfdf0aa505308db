"""The walk through the README on other systems, and the matrix of its results."""
