#!/bin/sh
# Takes the released program apart: FROM has it as cargo left it, TO gets it without what only a debugger reads, and that
# beside it as gavel.debug, which a debugger and `perf` find by its build id, or in the same directory. Its names are links.
set -eu
from=$1
to=$2
mkdir -p "$to"
objcopy --only-keep-debug "$from/gavel" "$to/gavel.debug"
objcopy --strip-debug --strip-unneeded "$from/gavel" "$to/gavel"
(cd "$to" && objcopy --add-gnu-debuglink=gavel.debug gavel)
for name in bid-service bid-worker bidctl; do
    ln -sfn gavel "$to/$name"
done
