"""Tests of the command line: the console script as a subprocess, as scripts and people run it."""
