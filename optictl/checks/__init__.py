"""The checks: a registry of functions that read and never write.

`registry` runs them and knows nothing of OptiLLM; `deployment` holds the facts, each read once;
the other modules hold one family of checks each.
"""
