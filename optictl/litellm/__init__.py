"""A LiteLLM configuration as a routing graph: read -> graph -> judge. Pure, and compared with LiteLLM 1.106.2.

`read` turns YAML into typed settings, each with its file and line; `graph` follows a request
through them as LiteLLM's router would; `judge` says what is wrong with where it gets.
"""
