"""Say what happens: audit lines, logs and metrics."""
