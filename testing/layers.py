"""The layers of optictl: which room may import which. The layer test enforces them; the docs draw them."""

#: From the bottom to the top. A module may import from the layers below its room, and from its room.
LAYERS = [
    {"optictl", "errors", "records", "results", "guard", "collections"},
    {"deployment"},
    {"host"},
    {"litellm", "takeover", "proof"},
    {"releases"},
    {"facts"},
    {"checks"},
    {"operations", "requests", "observe", "fleet"},
    {"output"},
    {"demo"},
    {"cli"},
    {"__main__"},
]
