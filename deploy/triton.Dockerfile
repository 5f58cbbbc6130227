# Triton with what NAME_python of a model repository needs: `docker build -f deploy/triton.Dockerfile -t dibr-triton:0.1.0 .`
# numpy below 2: see docs/triton.md.
FROM nvcr.io/nvidia/tritonserver:24.12-py3
RUN pip install --no-cache-dir "numpy<2" "onnxruntime>=1.17"
