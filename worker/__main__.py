"""`python -m worker` is `avatar-worker`."""

from worker.cli import main

main()
