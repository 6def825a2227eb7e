"""Ray job entrypoints: one driver process a job."""
