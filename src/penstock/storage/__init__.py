"""What every durable write goes through: synced files, and the fail points that crash tests use."""
