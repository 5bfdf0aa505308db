"""The only code that touches the machine.

`files` (disk), `interpreters` and `uv` (Python environments), `processes` (/proc and
children), `network` (HTTP on loopback). Everything else in optictl decides from facts.
"""
