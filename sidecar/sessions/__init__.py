"""Keep sessions and everything else that is short-lived, in memory or in Redis."""
