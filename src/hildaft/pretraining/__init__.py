"""Pretraining of the embedded backbone on generic skills."""
