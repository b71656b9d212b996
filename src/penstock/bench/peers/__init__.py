"""Other engines over the same backlog as Penstock: their environments, their processes, what they took.

A peer is a program of its own (`harness.Peer`) that runs in its own process, and mostly in its own virtual environment;
nothing of it is ever imported here.
"""
