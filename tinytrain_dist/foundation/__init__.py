"""Errors and exit codes, paths, hashing, seeds, strict YAML, logging, progress: known by every floor."""
