"""Bodies in the SMPL-X file format: data, posing, the free body, files."""
