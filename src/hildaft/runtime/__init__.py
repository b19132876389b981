"""The worker's interaction loop and the training session."""
