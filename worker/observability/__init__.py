"""What the worker tells its operator: structured logs, one summary line per job."""
