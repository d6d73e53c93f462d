"""RoboCache inside other projects' interfaces; each module is imported by name, on purpose.

`robocache.integrations.lerobot` stands where LeRobot's `LeRobotDataset` stood.
"""
