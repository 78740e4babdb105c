"""Datasets that ccsa draws itself and writes to disk on first use: digits, far_cue, moving_cue
and small_objects.

Importing one of these modules registers its dataset with Detectron2. They are not imported here,
because :mod:`ccsa.data` decides what is registered.
"""
