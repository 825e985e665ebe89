"""The pipeline: photos and a height in, a measured 3D body out.

It knows nothing of queues, buckets or HTTP, and is usable as a library.
"""
