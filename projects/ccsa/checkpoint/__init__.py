"""Weights: reading and writing files safely, loading them into a model, and converting them."""

from ccsa.checkpoint.checkpointer import Checkpointer
from ccsa.checkpoint.conversion import convert_state_dict
from ccsa.checkpoint.weight_files import save_weights

__all__ = ["Checkpointer", "convert_state_dict", "save_weights"]
