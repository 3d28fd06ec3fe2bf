#!/bin/bash
# Copies this machine's ffmpeg into the package, with its libraries and their loader, so that it runs in any image.
set -euo pipefail
target="$1/ffmpeg"
architecture="$3"

fail() {
    echo "$1" >&2
    # EX_UNAVAILABLE: what is missing is this machine's.
    exit 69
}

program=$(command -v ffmpeg) ||
    fail "ffmpeg is not installed on this machine: \`apt-get install ffmpeg\`, or what your distribution has instead"
program=$(readlink -f "$program")
if [ "$(head -c 4 "$program" | tail -c 3)" != ELF ]; then
    fail "\`$program\` is no program but something that starts one; put the real ffmpeg first on the PATH"
fi
case "$(uname -m)" in
    x86_64) machine=x64 ;;
    aarch64) machine=arm64 ;;
    *) machine=$(uname -m) ;;
esac
if [ "$machine" != "$architecture" ]; then
    fail "this machine's ffmpeg is for $machine, and does not run on $architecture"
fi

command -v ldd >/dev/null || fail "\`ldd\` is needed to tell which libraries ffmpeg needs, and is not installed"
mkdir -p "$target/lib"
cp "$program" "$target/ffmpeg"
chmod 755 "$target/ffmpeg"
# A static ffmpeg has neither libraries nor a loader.
listed=$(ldd "$program" 2>/dev/null) || listed=""
missing=$(awk '/not found/ { print $1 }' <<<"$listed")
if [ -n "$missing" ]; then
    fail "this machine's ffmpeg lacks libraries: $missing"
fi
awk '$2 == "=>" && $3 ~ /^\// { print $3 }' <<<"$listed" | while read -r library; do
    cp -L "$library" "$target/lib/"
done
# The loader is the one line with a path and no arrow; musl's is listed as the C library too.
loader=$(awk '$1 ~ /^\// { print $1; exit }' <<<"$listed")
if [ -n "$loader" ]; then
    cp -L "$loader" "$target/loader"
    chmod 755 "$target/loader"
fi
