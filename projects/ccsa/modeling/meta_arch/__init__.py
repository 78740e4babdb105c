"""Meta-architectures: any model with context blocks, and segmentation of images and video."""
