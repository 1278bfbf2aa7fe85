#!/bin/sh
# Many videos on a laptop, on one big machine, on a Ray cluster, from a bucket to a bucket:
#
#     sh examples/batch.sh laptop clips/ stores/
#     sh examples/batch.sh machine clips/ stores/
#     sh examples/batch.sh cluster manifest.parquet s3://films/out ray://head:10001
#     sh examples/batch.sh bucket 's3://films/in/**/*.mp4' s3://films/out
#
# The same words again do what is left.
set -eu

case "$1" in
# One video at a time, and cores to spare.
laptop) maskstream batch "$2" -o "$3" --workers 1 --per-video-cores 1 ;;
# A process a core; long films in parts, so that none is left over at the end.
machine) maskstream batch "$2" -o "$3" --per-video-cores 1 --split-shots --export coco ;;
# As many workers as the cluster's nodes have cores for; every video is tried five times.
cluster) maskstream batch "$2" -o "$3" --on "$4" --tries 5 --json ;;
# Videos are copied to the local disk one by one; stores are written to the bucket.
bucket) maskstream batch "$2" -o "$3" --scratch "${TMPDIR:-/tmp}" --json ;;
*) echo "laptop, machine, cluster or bucket, not $1" >&2 && exit 2 ;;
esac
