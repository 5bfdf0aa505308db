"""LiteLLM's configuration as a routing graph. Pure; tests compare it with real LiteLLMs.

`read` turns YAML into typed settings with file and line. `graph` follows a request through them as
LiteLLM's router does. `judge` reports what is wrong with the routes. `versions` has the range of
versions that were compared.
"""
