#!/usr/bin/env bash
# compare_digests.sh NATIVE AARCH64: fails unless the native tests of two build folders, the second one for 64-bit ARM
# and run by QEMU, print the same digests of what every op gives. This machine needs AVX2: without it the soft mask is
# rounded otherwise (plugins/core/platform.h).
set -euo pipefail
driver=tests/native/drive_c_abi
emulator="qemu-aarch64 -L /usr/aarch64-linux-gnu"
# Sorted, since compilers differ in which of a call's outputs they make room for first.
"$1/$driver" digests | sort > "$1/digests.txt"
$emulator "$2/$driver" digests | sort > "$2/digests.txt"
if ! diff "$1/digests.txt" "$2/digests.txt"; then
  echo "outputs differ between $1 and $2" >&2
  exit 1
fi
echo "$(wc -l < "$1/digests.txt") outputs have the same bits in $1 and $2"
