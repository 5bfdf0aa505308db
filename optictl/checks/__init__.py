"""The checks. A check reads facts and judges them; it never writes.

`engine` runs checks and knows nothing of OptiLLM. `catalog` collects the checks of all families;
every other module holds one family, or a format or schedule of the results.
"""
