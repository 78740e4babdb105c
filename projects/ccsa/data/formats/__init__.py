"""Readers and writers of annotation formats: label images, panoptic JSON and PNG, MATLAB files."""
