"""How fast the operations are: every backend beside what a user could pick instead, in one run on the same inputs.

Nothing is timed before its result was checked. `robocache bench ops` is the door; the results are plain dictionaries,
stored as JSON, and everything that is written about speed is made from them.
"""
