"""The avatar worker: photos in, a measured avatar out, exactly one result per job."""

from importlib.metadata import version

__version__ = version("avatar-worker")
