"""Backbones: dilated ResNets, a small plain network, and the models of timm."""
