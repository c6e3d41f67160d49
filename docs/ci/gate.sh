#!/bin/sh
# Build, measure several times, and compare with the stored baseline. Plain POSIX shell: works in any CI, or by hand.
#
#   docs/ci/gate.sh                 # measure and gate; exit code 0 passed, 1 worse, 2 a mistake, 70 a bug
#   docs/ci/gate.sh --save          # measure and write a new baseline (commit it)
#
# What it does is set by variables:
set -eu
RECIPE=${RECIPE:-mobile-centernet-w16-dhaka}
BOARD=${BOARD:-x86-1t}
RUNS=${RUNS:-5}                       # repeats; five are good, three the least
SECONDS_EACH=${SECONDS_EACH:-20}      # timed part of every row
LIMITS=${LIMITS:-mAP=-0.5pt,latency=+5%,size=+1%,gops=+0%}
BASELINE=${BASELINE:-ci/baseline-$BOARD.json}
OUT=${OUT:-runs/ci}
EDGEKIT=${EDGEKIT:-edgekit}
ARTIFACTS=${ARTIFACTS:-}              # artifact folders that an earlier job built; without them RECIPE is built here
HISTORY=${HISTORY:-ci/history}

if [ "${1:-}" != --save ] && [ ! -f "$BASELINE" ]; then   # before minutes of measuring
  echo "$BASELINE: no such baseline to gate with. Save one on this machine, and commit it: $0 --save" >&2
  exit 2
fi
mkdir -p "$OUT"
rm -f "$OUT"/run-*.json               # repeats of an earlier build must not be taken for this one's

# 1. Build: the weights of the recipe, lowered to ONNX and INT8
if [ -z "$ARTIFACTS" ]; then
  ARTIFACTS="$OUT/onnx $OUT/onnx-int8"
  $EDGEKIT export "$RECIPE" --board "$BOARD" --out "$OUT/onnx"
  $EDGEKIT quantize "$OUT/onnx" --out "$OUT/onnx-int8"
fi

# 2. Measure: every repeat is a fresh process of its own
n=1
while [ "$n" -le "$RUNS" ]; do
  # shellcheck disable=SC2086  # several folders, none with a space in it
  $EDGEKIT bench $ARTIFACTS --board "$BOARD" --seconds "$SECONDS_EACH" --out "$OUT/run-$n.json"
  n=$((n + 1))
done

# 3. The page, with the history if there is one (see docs/ci.md)
if [ -d "$HISTORY" ]; then
  $EDGEKIT report "$OUT/run-1.json" --out "$OUT/report" --history "$HISTORY"
else
  $EDGEKIT report "$OUT/run-1.json" --out "$OUT/report"
fi

# 4. Save, or gate
if [ "${1:-}" = --save ]; then
  mkdir -p "$(dirname "$BASELINE")"
  $EDGEKIT baseline save "$OUT"/run-*.json --out "$BASELINE"
  exit 0
fi
exec $EDGEKIT gate "$BASELINE" "$OUT"/run-*.json --max "$LIMITS" \
  --markdown "$OUT/gate.md" --junit "$OUT/gate.xml" ${GITHUB_ACTIONS:+--github}
