#!/usr/bin/env bash
# check_wheel.sh PYTHON FOLDER: builds the wheel with pip alone, in isolation and where no torch is installed, looks
# into it, and uses it from outside of the repository: first in an environment without torch, then with torch.
set -euo pipefail
python=$1
repository=$PWD
rm -rf "$2"
mkdir -p "$2"
folder=$(cd "$2" && pwd)
clean=$folder/env/bin/python
constraints=$repository/requirements-dev.txt

"$python" -m venv "$folder/env"
echo "== pip wheel ."
"$clean" -m pip wheel --quiet --no-deps --wheel-dir "$folder" .
wheel=$(ls "$folder"/dibr_deploy-*.whl)
"$python" tests/packaging/check_contents.py "$wheel"

cd "$folder"
echo "== installed without torch"
"$clean" -m pip install --quiet --constraint "$constraints" "$wheel[onnxruntime]" onnx
"$clean" "$repository/tests/packaging/check_wheel.py" runtime "$folder"
echo "== the service, without torch"
"$clean" -m pip install --quiet --constraint "$constraints" "$wheel[serve,onnxruntime]"
"$clean" "$repository/tests/packaging/check_wheel.py" serve "$folder"
echo "== torch installed afterwards"
"$clean" -m pip install --quiet --constraint "$constraints" torch
"$clean" "$repository/tests/packaging/check_wheel.py" torch "$folder"
