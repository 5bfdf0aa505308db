"""The CPU time of the least that a proxy in Python does, in milliseconds per call.

`python floor.py PORT COUNT`, with the interpreter of a release: a bare httpx2 call to an upstream,
and an empty ASGI application on uvicorn, asked by a client in another process (`serve`). It prints
the time of a call; with the word `serve` in place of COUNT, its port, and it serves until its
standard input ends.
"""

from __future__ import annotations

import os
import sys
import threading
import time


def call(port: int, count: int) -> float:
    """The CPU milliseconds of one of `count` calls over a kept-alive connection."""
    import httpx2

    body = b'{"model": "jerry-xl", "messages": [{"role": "user", "content": "What is 2 + 2?"}]}'
    headers = {"Content-Type": "application/json", "Authorization": "Bearer floor"}
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    with httpx2.Client(trust_env=False, verify=False) as client:
        for _ in range(20):
            client.post(url, content=body, headers=headers).json()
        since = time.process_time()
        for _ in range(count):
            client.post(url, content=body, headers=headers).json()
        return (time.process_time() - since) / count * 1000


def serve() -> None:
    """An application that reads a request and answers with a fixed text."""
    import socket

    import uvicorn

    text = b'{"choices": [{"message": {"content": "a stand-in"}}]}'

    async def app(_scope: object, receive: object, send: object) -> None:
        while (await receive()).get("more_body"):  # type: ignore[operator]
            pass
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(text))]
        start = {"type": "http.response.start", "status": 200, "headers": headers}
        await send(start)  # type: ignore[operator]
        await send({"type": "http.response.body", "body": text})  # type: ignore[operator]

    def end_with_parent() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=end_with_parent, daemon=True).start()
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, http="httptools", lifespan="off", log_config=None)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    if sys.argv[2] == "serve":
        serve()
    else:
        print(call(int(sys.argv[1]), int(sys.argv[2])))
