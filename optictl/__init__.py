"""optictl installs, guards, checks and proves OptiLLM as a localhost service behind LiteLLM."""

__version__ = "0.1.0"
