"""Semantic segmentation heads: FCN, CCNet, SANet and CCNet for video."""
