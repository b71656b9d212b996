"""Where rows enter and leave: one file per system, one conformance suite for all."""
