"""Measure the sidecar beside its peers: ``make bench``."""
