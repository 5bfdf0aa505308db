"""What LiteLLM does with each status of a deployment, as it was measured.

`tests/integration/litellm/test_statuses.py` compares it with a real LiteLLM. The table in
`docs/reference/http-api.md` is made from it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Treatment:
    """What LiteLLM does after a status.

    `client`: the status that LiteLLM's own client gets. `tries`: requests to the deployment for one
    of the client, without settings for retries. `cools`: a lone deployment gets no request for a
    while, after one failure or after many. `cools_two`: so do both of two deployments of one name,
    after many.
    """

    client: int
    tries: int
    cools: bool
    cools_two: bool


#: With LiteLLM 1.110.2.
TREATMENTS = {
    400: Treatment(400, 1, cools=False, cools_two=False),
    401: Treatment(401, 1, cools=True, cools_two=True),
    402: Treatment(402, 1, cools=False, cools_two=True),
    403: Treatment(403, 3, cools=False, cools_two=False),
    404: Treatment(404, 1, cools=True, cools_two=True),
    405: Treatment(405, 1, cools=False, cools_two=False),
    406: Treatment(406, 1, cools=False, cools_two=False),
    408: Treatment(408, 3, cools=False, cools_two=True),
    409: Treatment(409, 3, cools=False, cools_two=False),
    410: Treatment(410, 1, cools=False, cools_two=False),
    411: Treatment(411, 1, cools=False, cools_two=False),
    412: Treatment(412, 1, cools=False, cools_two=False),
    413: Treatment(413, 1, cools=False, cools_two=False),
    414: Treatment(414, 1, cools=False, cools_two=False),
    415: Treatment(415, 1, cools=False, cools_two=False),
    416: Treatment(416, 1, cools=False, cools_two=False),
    417: Treatment(417, 1, cools=False, cools_two=False),
    418: Treatment(418, 1, cools=False, cools_two=False),
    421: Treatment(421, 1, cools=False, cools_two=False),
    422: Treatment(422, 1, cools=False, cools_two=False),
    423: Treatment(423, 1, cools=False, cools_two=False),
    424: Treatment(424, 1, cools=False, cools_two=False),
    425: Treatment(425, 1, cools=False, cools_two=False),
    426: Treatment(426, 1, cools=False, cools_two=False),
    428: Treatment(428, 1, cools=False, cools_two=False),
    429: Treatment(429, 3, cools=False, cools_two=True),
    431: Treatment(431, 1, cools=False, cools_two=False),
    451: Treatment(451, 1, cools=False, cools_two=False),
    499: Treatment(499, 1, cools=False, cools_two=False),
    500: Treatment(500, 3, cools=False, cools_two=True),
    501: Treatment(501, 3, cools=False, cools_two=True),
    502: Treatment(502, 3, cools=False, cools_two=True),
    503: Treatment(503, 3, cools=False, cools_two=True),
    504: Treatment(504, 3, cools=False, cools_two=True),
    505: Treatment(505, 3, cools=False, cools_two=True),
    507: Treatment(507, 3, cools=False, cools_two=True),
    508: Treatment(508, 3, cools=False, cools_two=True),
    511: Treatment(511, 3, cools=False, cools_two=True),
}
