"""The margin-risk monitor: positions, margin and stress of every account, and the enforcement ladder."""
