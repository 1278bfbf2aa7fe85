#!/bin/sh
# Test the image: built and run where docker is there, else the same steps here, as a user who is not root.
# usage: docker/check.sh   (from the repository's root)
set -eu
port=${PORT:-7869}
work=$(mktemp -d)
stop=:
cleanup() { $stop > /dev/null 2>&1 || true; rm -rf "$work"; }
trap cleanup EXIT INT TERM

answers() { # wait until the page answers, two minutes at most
    for _ in $(seq 120); do
        if python3 - "$port" 2> /dev/null << 'PY'; then return 0; fi
import sys, urllib.error, urllib.request
try:
    urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/", timeout=5)
except urllib.error.HTTPError as answer:  # it asks for the key of the login link
    sys.exit(b"login link" not in answer.read())
sys.exit("the page asks for no key")
PY
        sleep 1
    done
    echo "the page does not answer at port $port" >&2
    return 1
}

if docker info > /dev/null 2>&1; then
    docker build --quiet --tag maskstream:check . > /dev/null
    user=$(docker run --rm --entrypoint id maskstream:check -u)
    [ "$user" != 0 ] || { echo "the image runs as root" >&2; exit 1; }
    id=$(docker run --detach --rm --read-only --tmpfs /tmp --publish "127.0.0.1:$port:7860" maskstream:check)
    stop="docker stop $id"
    answers
    echo "docker: built, runs as user $user, the page answers"
    exit 0
fi

echo "no docker daemon here: the Dockerfile's steps are tested without it"
mkdir -p "$work/src" "$work/data"
# what .dockerignore lets through
for part in $(sed -n 's/^!//p' .dockerignore); do [ ! -e "$part" ] || cp -RL "$part" "$work/src/"; done
(cd "$work/src" && sh docker/install.sh "$work/venv")
as=
if [ "$(id -u)" = 0 ]; then
    chown -R 65534:65534 "$work/data"
    chmod 755 "$work"
    as="setpriv --reuid 65534 --regid 65534 --clear-groups"
fi
# shellcheck disable=SC2086
(cd / && exec env HOME="$work/data" MASKSTREAM_CACHE="$work/data/cache" $as "$work/venv/bin/maskstream" ui \
    --host 0.0.0.0 --port "$port" --sessions "$work/data/sessions") > "$work/log" 2>&1 &
stop="kill $!"
answers || { cat "$work/log" >&2; exit 1; }
user=$(ps -o uid= -p "$!" | tr -d ' ')
[ "$user" != 0 ] || { echo "it runs as root" >&2; exit 1; }
echo "steps: installed, runs as user $user, the page answers"
