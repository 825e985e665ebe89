"""The computation, in a process of its own: `supervisor` here, `process` there, `messages` between.

Two processes, because locks, cancellation and deadlines must work while CUDA does not answer, a
poisoned CUDA context can only be left by leaving its process, and bytes from users are decoded
where no credentials are.
"""
