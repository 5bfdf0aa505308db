"""What optictl costs and saves, each figure beside its alternative, measured in the same run.

`uv run python -m benchmarks` runs every part and writes RESULTS.md and results.json here;
`python -m benchmarks serve cli` runs some and replaces only their tables. A full install of
OptiLLM (about 7 GB below /var/tmp, removed afterwards) is the alternative of `install` and
`start`; `--no-full` leaves it out, and its figures then say "not measured".
"""
