#!/bin/sh
# Take out of the image's /opt/venv what nobody runs there.  Called at the end of every step that
# installs: what a later step deletes stays in the image's size.
set -eu
# The packages' own tests, torch's headers, test programs and compiler, and the pose models on WebGPU.
find /opt/venv/lib -type d -name tests -prune -exec rm -rf {} +
cd /opt/venv/lib/python3*/site-packages
rm -rf torch/include torch/test ai_edge_litert/libLiteRtWebGpuAccelerator.so
find torch/bin -type f \( -iname '*test*' -o -name 'protoc*' \) -delete
# scikit-image's sample pictures show people, and not all of them name a licence: no image passes
# them on.
[ ! -d skimage/data ] || find skimage/data -type f ! -name '*.py*' -delete
