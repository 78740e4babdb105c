#!/bin/sh
# setup_env.sh FOLDER: a virtual environment with pinned, tested versions, Detectron2 and ccsa itself. Safe to run again.
set -eu
folder=$1
supported='import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))'

python=
for candidate in python3 python3.12 python3.11 python3.10; do
    if command -v "$candidate" >/dev/null && "$candidate" -c "$supported" 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "error: no Python 3.10, 3.11 or 3.12 on the PATH (python3 is $(python3 -V 2>&1)); install one and run make again" >&2
    exit 2
fi

echo "Setting up $folder with $("$python" -V): about 2 minutes and 5 GB (PyTorch from PyPI)."
# A folder left by another Python, or by an interrupted call, is made anew.
if ! "$folder/bin/python" -c "$supported" 2>/dev/null || ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$folder"
    "$python" -m venv "$folder" || {
        echo "error: $python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2
        exit 2
    }
fi
pip() { "$folder/bin/python" -m pip --disable-pip-version-check "$@"; }
pip install -q -c constraints.txt -e '.[dev]'
"$folder/bin/python" tools/install_detectron2.py -c constraints.txt
if ! "$folder/bin/python" -c 'import cv2' 2>/dev/null; then
    # A machine with no display libraries (libGL): everything but the demo's window works with the headless build.
    # Its files replace those of opencv-python, which stays listed, so that both calls of pip agree.
    echo "opencv-python cannot load here (no libGL); its files are replaced by opencv-python-headless"
    version=$(sed -n 's/^opencv-python==//p' constraints.txt)
    pip install -q --force-reinstall --no-deps "opencv-python-headless==$version"
fi
pip check
echo "Ready."
