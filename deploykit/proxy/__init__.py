"""nginx in front of every published service."""
