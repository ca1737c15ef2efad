"""Signing in and out: the sidecar's own pages below its prefix, and the only place that sets cookies."""
