"""Compose files to frozen projects."""
