"""Who is in the photo: one person's keypoints and outline, or a named refusal."""

from worker.avatar.observe.observer import Observer

__all__ = ["Observer"]
