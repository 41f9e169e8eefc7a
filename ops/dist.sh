#!/bin/sh
# Takes released binaries apart: FROM has them as cargo left them, TO gets each without what only a debugger reads, and that beside
# it as NAME.debug. A debugger and `perf` find it by its build id, or in the same directory.
set -eu
from=$1
to=$2
mkdir -p "$to"
for name in bid-service bid-worker bidctl; do
    objcopy --only-keep-debug "$from/$name" "$to/$name.debug"
    objcopy --strip-debug --strip-unneeded "$from/$name" "$to/$name"
    (cd "$to" && objcopy --add-gnu-debuglink="$name.debug" "$name")
done
