"""Export of models as programs that run without ccsa: torch.export, TorchScript and ONNX."""

from ccsa.export.checks import Difference, detection_differences, semantic_differences
from ccsa.export.metadata import program_metadata
from ccsa.export.programs import FORMATS, Format, check_packages, difference, export
from ccsa.export.rcnn import InstancePart
from ccsa.export.semantic import SemanticProgram
from ccsa.export.whole import WholePart
from ccsa.export.wrappers import BackbonePart, Part, SemanticPart, exported_part

__all__ = [
    "FORMATS",
    "BackbonePart",
    "Difference",
    "Format",
    "InstancePart",
    "Part",
    "SemanticPart",
    "SemanticProgram",
    "WholePart",
    "check_packages",
    "detection_differences",
    "difference",
    "export",
    "exported_part",
    "program_metadata",
    "semantic_differences",
]
