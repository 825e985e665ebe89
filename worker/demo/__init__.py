"""The whole product on one machine: real servers, a reference API, its web page, the worker.

- `tether.py` makes a child process end when its parent does
- `servers.py` one server process: free port, readiness, restart, end
- `stack.py` Valkey and MinIO's API with users and policies, ready to use
- `store.py` jobs and avatars in SQLite
- `api.py` the reference API of the contract, and the page
- `run.py` `avatar-worker demo`: everything started, shown, and ended in order
"""
