#!/bin/sh
# Install the wheels carried along, if any, and run scripts/gpu_session.py, which explains the options.
#   scripts/gpu_session.sh --output DIR [--data DIR] [--minutes 9] [--wheels DIR] [--rehearse]
set -e
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
wheels=
options=
while [ $# -gt 0 ]; do
  case $1 in
    --wheels) wheels=$2; shift 2 ;;
    *) options="$options '$1'"; shift ;;
  esac
done
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
if [ -n "$wheels" ]; then
  site=$(mktemp -d)
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl
  PYTHONPATH=$PYTHONPATH:$site
fi
export PYTHONPATH
eval exec '"$python"' '"$root/scripts/gpu_session.py"' $options
