"""BullMQ, so that nothing of it leaks out.

`worker` takes jobs and settles each of them, and hands each over as a `delivery`; `retries` says
who is tried again, and when; `cancellation` takes a job back, from outside; `lease` says who may
write a job's results.  Only `bull` and `locks` reach into the bullmq package.  `connection` makes
clients for Redis, and has a ping that says what is wrong; `keys` names our own keys there.
"""
