"""Shared signals: what happens to people elsewhere is heard of here, and ends, weakens or renews their sessions."""
