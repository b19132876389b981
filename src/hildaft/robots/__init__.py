"""Robots: anything that can be reset, stepped at 10 Hz and stopped."""
