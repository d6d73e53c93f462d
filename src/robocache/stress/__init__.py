"""Scenarios that try to break RoboCache: one file each, plain functions that measure and return a `Report`.

They neither print nor exit. `tests/stress/` runs them short and judges; with other `Settings` they run for hours.
"""
