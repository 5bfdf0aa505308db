"""The costs and savings of optictl. Each figure is measured together with its alternative.

`uv run python -m benchmarks` runs every part and writes RESULTS.md and results.json here;
`python -m benchmarks serve cli` runs some and replaces only their tables. A full install of
OptiLLM (about 7 GB below /var/tmp, removed afterwards) is the alternative of `install` and
`start`. `--no-full` skips it; its figures are then "not measured".

`python -m benchmarks effect` has a real model, and writes EFFECT.md; `python -m benchmarks
strategies` measures how long clients wait, and writes STRATEGIES.md. They are not run with the
parts.
"""
