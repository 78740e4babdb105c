"""Weights: reading and writing files safely, loading them into a model, and converting them."""

from ccsa.checkpoint.checkpointer import Checkpointer
from ccsa.checkpoint.conversion import convert_state_dict
from ccsa.checkpoint.load_report import LoadReport
from ccsa.checkpoint.weight_files import read_weights, save_weights

__all__ = ["Checkpointer", "LoadReport", "convert_state_dict", "read_weights", "save_weights"]
