"""Examine a whole deployment: what was seen, why it matters, and what to change."""
