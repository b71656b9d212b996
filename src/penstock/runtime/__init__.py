"""The epoch loop and the in-process session."""
