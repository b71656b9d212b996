"""What incremental views cost: TPC-H and Nexmark as pipelines, and epochs of them measured against the recompute."""
