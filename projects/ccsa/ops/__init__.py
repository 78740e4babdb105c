"""Operators on tensors. This package imports torch only: no modules, no Detectron2."""

from ccsa.ops.criss_cross import criss_cross_attention, criss_cross_weights, use_backend

__all__ = ["criss_cross_attention", "criss_cross_weights", "use_backend"]
