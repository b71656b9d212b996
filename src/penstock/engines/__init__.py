"""What executes epochs: one folder per engine, with the same file names in each."""
