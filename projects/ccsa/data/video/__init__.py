"""Clips: several frames of a video as one training sample."""
