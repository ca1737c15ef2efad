"""Decide what a synchronisation changes, whether that is too much, and when it runs; pure."""
