"""MinIO: photos in, outputs and the completion marker out."""
