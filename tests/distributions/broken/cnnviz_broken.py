"""Raises on import."""

raise RuntimeError("this plugin is out of order")
