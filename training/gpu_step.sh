#!/usr/bin/env bash
# One step on a borrowed GPU: go on training for so many minutes, then leave weights, logs and sheets in a folder.
#
#   bash training/gpu_step.sh MINUTES OUT [PACK]
#
# PACK (default "carried") is what `python -m training pack` wrote; wheels in PACK/wheels are installed first. The run
# itself lives outside the checkout ($RUN) and is found again by the next step on the same machine. Where it is not,
# training goes on from PACK/weights if that folder is there, else from the start. Other settings: PRESET, EXTRA.
set -euo pipefail

minutes=$1
out=$2
pack=${3:-carried}
run=${RUN:-/tmp/asuka-run}
preset=${PRESET:-gpu}
kept=$run.pack
export PYTHONUNBUFFERED=1 OMP_WAIT_POLICY=PASSIVE

mkdir -p "$out" "$run" "$kept"
# What one call carried serves the next ones, so that later calls may carry something else.
if [ -d "$pack" ]; then cp -r "$pack"/. "$kept"/; fi
if compgen -G "$kept/wheels/*.whl" > /dev/null && [ ! -d "$run.site" ]; then
    python3 -m pip install -q --no-index --no-deps --no-compile --target "$run.site" "$kept"/wheels/*.whl
fi
export PYTHONPATH=$run.site${PYTHONPATH:+:$PYTHONPATH}

if [ -d "$kept/weights" ] && [ -f "$kept/weights/mini.json" ] && [ ! -d "$run/vae" ]; then
    python3 -m training adopt --weights "$kept/weights" --run "$run"
fi

paused=0
# shellcheck disable=SC2086 # EXTRA is a list of options
python3 -m training mini --preset "$preset" --data "$kept/train" --run "$run" --pause-after "$minutes" ${EXTRA:-} ||
    paused=$?
if [ "$paused" -ne 0 ] && [ "$paused" -ne 3 ]; then exit "$paused"; fi

python3 -m training export --preset "$preset" --run "$run" --out "$out"
# Every stage's log, state and newest sheet in one file.
sheets=$(for stage in "$run"/*/sheets; do ls -t "$stage"/*.webp | head -1; done)
tar -czf "$out/told.tar.gz" -C / $(printf '%s\n' "$run"/*/log.jsonl "$run"/*/state.json $sheets | sed 's|^/||')
