"""An authentication sidecar: a reverse proxy that signs people in and gives them an account in the application."""

__version__ = "0.1.0"
