"""What `models-sync` does when the network, the bucket or the volume fails."""
