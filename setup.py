"""Packaging of ccsa. Detectron2 itself comes from an official build or
tools/install_detectron2.py."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

setup(
    name="ccsa",
    version="0.1.0",
    description="Context attention blocks (CCNet, SANet) for any Detectron2 model",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    package_dir={"": "projects"},
    packages=find_packages("projects"),
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.4",
        "torchvision",
        "numpy",
        "opencv-python",
        "pycocotools>=2.0.6",
        "fvcore>=0.1.5.post20221221",
        "iopath>=0.1.7",
        "safetensors>=0.4",
        "scikit-learn",
        "scipy",
        "matplotlib",
        "pillow>=10.1",
        "pyyaml",
        "tabulate",
        "tensorboard",
        "tqdm",
    ],
    extras_require={
        "benchmark": ["mmcv-lite==2.1.0"],  # one of its files is compared with
        "dev": [
            *("mmcv-lite==2.1.0", "mypy", "onnx", "onnxruntime", "onnxscript", "pytest"),
            *("pytest-xdist", "ruff", "timm>=1.0.31"),
        ],
        "export": ["onnx", "onnxruntime", "onnxscript"],  # to ONNX; other formats need torch alone
        "timm": ["timm>=1.0.31"],  # its backbones
    },
)
