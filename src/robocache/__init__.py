"""RoboCache: a GPU-accelerated data engine for robot foundation models."""

__version__ = "0.1.0"
