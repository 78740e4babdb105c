#!/bin/sh
# setup_env.sh FOLDER creates a virtual environment in FOLDER with the tested versions of all packages, Detectron2 and
# ccsa itself. It is safe to run again.
set -eu
folder=${1:?"usage: sh tools/setup_env.sh FOLDER"}
supported='import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))'

python=
for candidate in python3 python3.13 python3.12 python3.11 python3.10 python3.14; do
    if command -v "$candidate" >/dev/null && "$candidate" -c "$supported" 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "error: no Python from 3.10 to 3.14 was found on the PATH (python3 is $(python3 -V 2>&1)). Install one and run make again." >&2
    exit 2
fi

echo "Setting up $folder with $("$python" -V). This takes about 2 minutes and 6.5 GB, most of it for PyTorch."
# A folder that was created by another version of Python, or by an interrupted call, is created again.
if ! "$folder/bin/python" -c "$supported" 2>/dev/null || ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$folder"
    "$python" -m venv "$folder" || {
        echo "error: $python cannot create a virtual environment. On Debian and Ubuntu, run: apt install python3-venv" >&2
        exit 2
    }
fi
pip() { "$folder/bin/python" -m pip --disable-pip-version-check "$@"; }
pip install -q -c constraints.txt -e '.[dev]'
"$folder/bin/python" tools/install_detectron2.py -c constraints.txt
if ! "$folder/bin/python" -c 'import cv2' 2>/dev/null; then
    # On a machine without display libraries (libGL) everything except the window of the demo works with the headless
    # build. Its files replace those of opencv-python, which pip still lists, so that running this again changes nothing.
    echo "opencv-python cannot be loaded on this machine (libGL is missing). Its files are replaced by those of opencv-python-headless."
    version=$(sed -n 's/^opencv-python==//p' constraints.txt)
    pip install -q --force-reinstall --no-deps "opencv-python-headless==$version"
fi
pip check
echo "The environment in $folder is ready."
