"""BullMQ, so that nothing of it leaks out: `worker` takes jobs, `connection` reaches Redis."""
