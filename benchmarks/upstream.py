"""An upstream that answers at once, or after SECONDS: `python -m benchmarks.upstream [SECONDS]`.

It says what optictl's stand-in says, but spends a fifth of its time on it (one asyncio loop,
no header parsing beyond the length), so that on a machine with two cores it does not hide
what the programs under test cost. It prints its port; GET /count tells how many completions
it gave.
"""

from __future__ import annotations

import asyncio
import json
import sys

from optictl.proof.standin import completion

MODELS = {
    "object": "list",
    "data": [{"id": "jerry-xl", "object": "model", "created": 0, "owned_by": "benchmarks"}],
}


class Upstream(asyncio.Protocol):
    """A connection: complete requests in, complete answers out."""

    served = 0
    seconds = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.received = transport, b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        while True:
            head, end, rest = self.received.partition(b"\r\n\r\n")
            if not end:
                return
            _, found, after = head.lower().partition(b"content-length:")
            length = int(after.split(b"\r\n", 1)[0]) if found else 0
            if len(rest) < length:
                return
            body, self.received = rest[:length], rest[length:]
            answer = json.dumps(self.answer(head, body)).encode()
            reply = (
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                % len(answer)
            )
            if head.startswith(b"POST") and self.seconds:
                asyncio.get_running_loop().call_later(
                    self.seconds, self.transport.write, reply + answer
                )
            else:
                self.transport.write(reply + answer)

    @staticmethod
    def answer(head: bytes, body: bytes) -> object:
        if head.startswith(b"GET /count"):
            return {"completions": Upstream.served}
        if head.startswith(b"GET"):
            return MODELS
        Upstream.served += 1
        return completion(json.loads(body))


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    Upstream.seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0
    asyncio.run(_serve())
