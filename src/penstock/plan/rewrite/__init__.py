"""Linear rewrites of a qualified query, before the choice of strategy: each file has one, with its equation."""
