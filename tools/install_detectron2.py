#!/usr/bin/env python
"""Install Detectron2 from PyPI, without a compiler.

    python tools/install_detectron2.py -c constraints.txt

If Detectron2 is already installed, nothing is changed. Otherwise the PyPI wheel `labgym==3.1.2` is
downloaded, and its hash is checked. It contains the whole pure-Python Detectron2 0.6 (Apache-2.0)
as `LabGym/detectron2`. Only that folder is taken, its import namespace is restored, and pip
installs it as the distribution `detectron2`: `pip list` shows it, `pip uninstall` removes it.

The compiled extension (rotated boxes, deformable convolution) is not included. If you need it,
install an official build of Detectron2 first.
"""

import argparse
import base64
import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CARRIER = "labgym==3.1.2"
CARRIER_SHA256 = "a2900cff8a3fb508e1975f19b5f9abd9f261966db87b0c332697fb4138c1cb2b"
CARRIED_FOLDER = "LabGym/detectron2/"
VERSION = "0.6"
REQUIREMENTS = [
    "cloudpickle",
    "fvcore>=0.1.5,<0.1.6",
    "hydra-core>=1.1",
    "iopath>=0.1.7,<0.1.10",
    "matplotlib",
    "omegaconf>=2.1,<2.4",
    "packaging",
    "pillow>=7.1",
    "pycocotools>=2.0.2",
    "setuptools<81",  # detectron2.model_zoo imports pkg_resources
    "tabulate",
    "tensorboard",
    "termcolor>=1.1",
    "tqdm>4.29.0",
    "yacs>=0.1.8",
]
ROOT = Path(__file__).resolve().parents[1]


def pip(*args: str) -> None:
    """Run the pip of this interpreter, and exit with a message if it fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *args]
    status = subprocess.run(command).returncode
    if status:
        sys.exit(f"install_detectron2: '{' '.join(command)}' failed with status {status}")


def fetch_carrier(folder: Path) -> Path:
    """Download the wheel that contains Detectron2 into ``folder`` and return its path.

    pip rejects the wheel if its hash differs.
    """
    requirement = folder / "carrier.txt"
    requirement.write_text(f"{CARRIER} --hash=sha256:{CARRIER_SHA256}\n")
    # Its metadata requires Python < 3.11 and GUI packages. The folder taken from it needs neither.
    pip(
        *("download", "-q", "--no-deps", "--ignore-requires-python", "--only-binary=:all:"),
        *("--require-hashes", "-r", str(requirement), "-d", str(folder)),
    )
    return next(folder.glob("*.whl"))


def restored_files(carrier: Path) -> dict[str, bytes]:
    """Return the files of Detectron2 by path, with references to its own import namespace."""
    files = {}
    with zipfile.ZipFile(carrier) as wheel:
        for name in wheel.namelist():
            if not name.startswith(CARRIED_FOLDER) or name.endswith("/"):
                continue
            content = wheel.read(name)
            if name.endswith((".py", ".yaml")):
                content = content.replace(b"LabGym.detectron2", b"detectron2")
            files[name.removeprefix("LabGym/")] = content
    if "detectron2/__init__.py" not in files:
        sys.exit(f"install_detectron2: {CARRIER} does not contain {CARRIED_FOLDER}")
    return files


def build_wheel(files: dict[str, bytes], folder: Path) -> Path:
    """Write ``files`` and their metadata as a wheel of the distribution `detectron2`.

    Return the path of the wheel, which is written into ``folder``.
    """
    info = f"detectron2-{VERSION}.dist-info"
    metadata = [
        "Metadata-Version: 2.1",
        "Name: detectron2",
        f"Version: {VERSION}",
        "Summary: Detectron2, pure-Python part (no compiled extension)",
        "License: Apache-2.0",
        "Home-page: https://github.com/facebookresearch/detectron2",
        *(f"Requires-Dist: {requirement}" for requirement in REQUIREMENTS),
    ]
    files = {
        **files,
        f"{info}/METADATA": "\n".join([*metadata, ""]).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: ccsa\n"
        b"Root-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/licenses/LICENSE": (ROOT / "LICENSE").read_bytes(),
    }
    record = [f"{info}/RECORD,,"]
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record.append(f"{name},sha256={digest},{len(content)}")
    path = folder / f"detectron2-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
        wheel.writestr(f"{info}/RECORD", "\n".join([*record, ""]))
    return path


def main() -> None:
    """Install Detectron2 unless it is installed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "-c", "--constraint", help="constraints file for the packages that Detectron2 requires"
    )
    args = parser.parse_args()
    if importlib.util.find_spec("detectron2"):
        print("Detectron2 is already installed and is left as it is.")
        return
    with tempfile.TemporaryDirectory() as folder:
        carrier = fetch_carrier(Path(folder))
        wheel = build_wheel(restored_files(carrier), Path(folder))
        constraint = ("-c", args.constraint) if args.constraint else ()
        pip("install", "-q", *constraint, str(wheel))
    print(f"Detectron2 {VERSION} was installed.")


if __name__ == "__main__":
    main()
