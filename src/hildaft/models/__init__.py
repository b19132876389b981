"""Torch modules: frozen encoders, the two actors and the critics."""
