"""The version of this package, below every room, so that each can name it."""

__version__ = "0.1.0"
