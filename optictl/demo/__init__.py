"""The demonstration: a whole deployment in a directory, on a stand-in or a small real model."""
