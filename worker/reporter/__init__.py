"""The API is told: progress while a job runs, and one final report."""
