"""Seeded fault simulation of a pipeline: the real job in this process, its faults in a schedule that a seed decides."""
