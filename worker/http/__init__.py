"""What the worker answers over HTTP: is it alive, is it ready."""
