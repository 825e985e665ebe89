"""BullMQ, so that nothing of it leaks out.

`worker` takes jobs and settles each of them, and hands each over as a `delivery`; `running` is the
work on one; `retries` says who is tried again, and when; `cancellation` takes a job back, from
outside, and `pulse` notices it; `lease` says who may write a job's results, and `marks` what was
remembered of it.  Only `bull`, `scripts`, `taking` and `locks` reach into the bullmq package.
`connection` makes clients for Redis, and has a ping that says what is wrong; `line` is the one
connection for what every job asks; `keys` names our own keys there.  `overview` and its neighbours
look at a queue, and `admin` repairs it.
"""
