"""The guard: the code that runs inside the service, in OptiLLM's own interpreter.

Every release contains a copy of it next to the unchanged OptiLLM wheel. It may import only
OptiLLM's locked closure: the standard library, OptiLLM, openai, httpcore2, httpx2, PyYAML,
gunicorn, uvicorn, prometheus_client. The guard refuses an unsafe start, fixes some defects of
OptiLLM in memory, checks every request, and counts the upstream calls of each request.
"""

#: The value of the header `x-optillm-guard` in every response. `optictl check` recognizes a guarded
#: process by it. Increase it when a header, an error code or a refusal changes.
GUARD_VERSION = "6"
