"""Weights: reading and writing files safely, loading them into a model, and converting them."""

from ccsa.checkpoint.checkpointer import Checkpointer
from ccsa.checkpoint.class_names import Classes, classes_entry, read_classes
from ccsa.checkpoint.conversion import convert_state_dict
from ccsa.checkpoint.load_report import LoadReport
from ccsa.checkpoint.weight_files import read_weights, save_weights

__all__ = [
    "Checkpointer",
    "Classes",
    "LoadReport",
    "classes_entry",
    "convert_state_dict",
    "read_classes",
    "read_weights",
    "save_weights",
]
