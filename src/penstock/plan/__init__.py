"""From declared views to the incremental program: parse, bind, blocks, strategies, bounds, explain."""
