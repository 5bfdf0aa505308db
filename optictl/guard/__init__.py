"""The guard: the code that runs inside the service, in OptiLLM's own interpreter.

It is copied into every release next to the untouched OptiLLM wheel and may import
nothing but OptiLLM's locked closure (the standard library, OptiLLM, openai, werkzeug,
PyYAML, gunicorn, prometheus_client). It refuses an unsafe start, corrects a handful of OptiLLM's
behaviours in memory, checks every request at the door and counts what each one
really sends upstream.
"""

#: Sent as `x-optillm-guard` with every answer; `optictl check` recognises a guarded
#: process by it. Bumped when a header, an error code or a refusal changes.
GUARD_VERSION = "3"
