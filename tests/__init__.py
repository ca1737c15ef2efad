"""The tests of the sidecar; tests/conftest.py says which real servers they may ask for."""
