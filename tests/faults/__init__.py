"""One fault at one stage, and what must be true afterwards: `python -m tests.faults`."""
