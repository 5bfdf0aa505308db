"""Runs in LiteLLM's venv: where a call with an `api_base` goes, for every provider's prefix.

Argument: a JSON list of prefixes. It prints JSON: {"known": every prefix that LiteLLM has,
"sent": {prefix: [[path, model], ...]}, "router": the names of router_settings,
"retries": those of a retry policy}.
"""

import asyncio
import contextlib
import inspect
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from litellm.llms.openai_like.json_loader import JSONProviderRegistry
from litellm.types.router import RetryPolicy

seen: list[list[str]] = []


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        seen.append([self.path, body.get("model")])
        self.send_response(400)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_POST

    def log_message(self, *arguments):
        """Silent."""


async def sent(prefix, base):
    seen.clear()
    question = [{"role": "user", "content": "hi"}]
    call = litellm.acompletion(
        model=f"{prefix}/moa-x", api_base=base, api_key="x", messages=question, max_retries=0
    )
    with contextlib.suppress(Exception):  # each call fails: what counts is what was sent
        await asyncio.wait_for(call, 10)
    return [list(one) for one in dict.fromkeys(map(tuple, seen))]


async def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_address[1]}/v1"
    known = {getattr(one, "value", one) for one in litellm.provider_list} | set(
        JSONProviderRegistry.list_providers()
    )
    answer = {prefix: await sent(prefix, base) for prefix in json.loads(sys.argv[1])}
    router = [
        name for name in inspect.signature(litellm.Router.__init__).parameters if name != "self"
    ]
    retries = sorted(RetryPolicy.model_fields)
    print(
        json.dumps({"known": sorted(known), "sent": answer, "router": router, "retries": retries})
    )


asyncio.run(main())
