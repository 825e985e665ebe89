"""Model weights from a private bucket to a volume."""
