"""Exhibits as blocks of a matplotlib figure."""
