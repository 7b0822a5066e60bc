"""Four acts under steady traffic: up, scale, a good version, a bad one. The kit's whole main job in one command."""
