"""The demonstration: a whole deployment in a scratch directory, on the embedded stand-in."""
