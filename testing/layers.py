"""The layers of optictl: which room may import which. A test enforces them; the docs draw them."""

#: From the bottom to the top. A module may import from its room and from rooms in lower layers.
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
