"""Tests of optictl's own code: no OptiLLM and no LiteLLM is started."""
