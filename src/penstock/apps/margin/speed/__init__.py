"""What a tick of the margin monitor costs, against a hand-written recompute and arrays that do the same."""
