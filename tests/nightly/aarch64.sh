#!/usr/bin/env bash
# The board's program in an emulated arm64 Debian: install, build, verify the boxes, bench. Nightly, not in CI: the
# system takes four minutes and half a gigabyte the first time, and everything in it runs some 20 times slower.
#   tests/nightly/aarch64.sh DIR [ARTIFACT]
# DIR keeps the system for the next time. ARTIFACT is an onnx artifact; without one a tiny network is made.
# Needs root on Debian or Ubuntu. Its times are an emulator's: the row is the board "twin", "simulated".
# MIRROR names a Debian mirror; PYTHON the workstation's Python with EdgeKit (default .venv/bin/python).
set -eu
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  echo "usage: $0 DIR [ARTIFACT]" >&2
  exit 2
fi
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$1"
system=$(cd "$1" && pwd)/debian-arm64
work=$(cd "$1" && pwd)/work
python=${PYTHON:-$root/.venv/bin/python}
[ "$(id -u)" = 0 ] || { echo "$0: needs root, for debootstrap and chroot" >&2; exit 2; }

say() { echo "aarch64: $*" >&2; }

need_tools() {
  if command -v debootstrap >/dev/null && [ -x /usr/bin/qemu-aarch64-static ]; then return; fi
  say "installing qemu-user-static, binfmt-support and debootstrap"
  apt-get install -y -q --no-install-recommends qemu-user-static binfmt-support debootstrap >/dev/null
}

register() {  # the kernel hands arm64 programs to qemu
  [ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
  [ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] || update-binfmts --enable qemu-aarch64
}

inside() { chroot "$system" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 "$@"; }

make_system() {
  [ -e "$system/.ready" ] && return
  say "debootstrap (minutes)"
  rm -rf "$system"
  debootstrap --arch=arm64 --foreign --variant=minbase --include=python3,python3-venv,ca-certificates \
    bookworm "$system" ${MIRROR:+"$MIRROR"} >"$1/debootstrap.log"
  cp /usr/bin/qemu-aarch64-static "$system/usr/bin/"
  inside /debootstrap/debootstrap --second-stage >>"$1/debootstrap.log"
  touch "$system/.ready"
}

make_python() {
  [ -e "$system/opt/board/.ready" ] && return
  say "numpy, OpenCV and ONNX Runtime for aarch64"
  cp /etc/resolv.conf "$system/etc/resolv.conf"
  cp /etc/ssl/certs/ca-certificates.crt "$system/etc/ssl/certs/ca-certificates.crt"
  inside python3 -m venv /opt/board
  # the workstation's own settings of pip, but for local folders, which are not there
  for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST HTTPS_PROXY HTTP_PROXY NO_PROXY; do
    [ -z "${!name:-}" ] || settings="${settings:-} $name=${!name}"
  done
  # shellcheck disable=SC2086
  inside env ${settings:-} PIP_CERT=/etc/ssl/certs/ca-certificates.crt /opt/board/bin/python -m pip install -q \
    --disable-pip-version-check --only-binary :all: numpy opencv-python-headless onnxruntime
  touch "$system/opt/board/.ready"
}

make_bundle() {  # on the workstation, for a Raspberry Pi 4: aarch64 and ONNX Runtime
  rm -rf "$work"
  mkdir -p "$work"
  (cd "$root" && "$python" - "$work" "${1:-}" <<'PY'
import sys
from pathlib import Path

from edgekit.deploy.bundling import BundleOptions, bundle
from tests.twin import network

work, given = Path(sys.argv[1]), sys.argv[2]
options = BundleOptions() if given else BundleOptions(data=str(network.pictures(work / "pictures", 4)))
source = given or network.artifact(work / "model").path
print(bundle(source, board="raspberry-pi-4", options=options, out=work / "model.tar.gz")["digest"][:16])
PY
  )
}

# a device tree of the board that says that it is emulated
make_tree() {
  mkdir -p "$system/root/sysroot/proc/device-tree"
  printf 'Raspberry Pi 4 Model B, emulated\0' >"$system/root/sysroot/proc/device-tree/model"
  printf 'raspberrypi,4-model-b\0edgekit,twin\0' >"$system/root/sysroot/proc/device-tree/compatible"
  cp /proc/meminfo "$system/root/sysroot/proc/meminfo"
}

board() { inside EDGEKIT_SYSROOT=/root/sysroot EDGEKIT_HOME=/root/edgekit /opt/board/bin/python /root/edgekit_board.pyz "$@"; }

need_tools
register
make_system "$1"
mountpoint -q "$system/proc" || mount -t proc proc "$system/proc"
trap 'umount "$system/proc"' EXIT
make_python
version=$(make_bundle "${2:-}")
make_tree
cp "$work/model.tar.gz" "$system/root/"
tar -xzf "$work/model.tar.gz" -C "$system/root" edgekit_board.pyz
rm -rf "$system/root/edgekit"
say "on $(inside uname -m), $(inside /opt/board/bin/python --version)"
board doctor
for step in "install /root/model.tar.gz" "build $version" "verify $version" "activate $version" "bench $version --seconds 1 --count 5 --warmup 1"; do
  say "$step"
  # shellcheck disable=SC2086
  board $step >"$work/${step%% *}.json"
done
"$python" - "$work" <<'PY'
import json
import sys
from pathlib import Path

work = Path(sys.argv[1])
verified, told = (json.loads((work / f"{name}.json").read_text()) for name in ("verify", "bench"))
assert verified["same"] and told["machine_before"]["architecture"] == "aarch64", verified
assert told["board"]["simulated"], "an emulator must say that it is one"
print(
    f"aarch64: {verified['boxes']} golden boxes, {verified['unpaired']} without a partner, worst IoU "
    f"{verified['worst_iou']:.6f}, worst score {verified['worst_score']:.2e}; {told['session']['library']} "
    f"{told['session']['version']}, {told['timed']['count']} frames run (an emulator's times mean nothing)"
)
PY
