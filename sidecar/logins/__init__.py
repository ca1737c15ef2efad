"""Signing in at providers, and recognising those who bring a token."""
