"""Compose the service: settings, addresses, the server."""

__version__ = "2.1.0"
