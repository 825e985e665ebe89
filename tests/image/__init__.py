"""`make image-test`: the built image, run as an operator runs it.  Not part of `make test`."""
