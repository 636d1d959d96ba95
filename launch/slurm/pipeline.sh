#!/usr/bin/env bash
# The five stages as five jobs, each when the one before it has succeeded; from the root of the
# checkout:
#
#   launch/slurm/pipeline.sh --nodes=2 --time=8:00:00 -- -c FILE [SECTION.KEY=VALUE]...
#
# Before -- stand sbatch's options, after it the words of every stage. Prints each job's id.

if [[ -f launch/site.env ]]; then
  # shellcheck source=/dev/null
  . launch/site.env
fi
set -euo pipefail

options=(--parsable --kill-on-invalid-dep=yes)
while (($#)) && [[ $1 != -- ]]; do
  options+=("$1")
  shift
done
if (($# == 0)); then
  echo "pipeline.sh: error: no -- | do: pipeline.sh [SBATCH OPTIONS] -- -c FILE ..." >&2
  exit 2
fi
shift

before=
for stage in build-shards fit-embedding train sample evaluate; do
  job=$(sbatch "${options[@]}" --job-name="$stage" ${before:+--dependency="afterok:$before"} \
    launch/slurm/stage.sbatch "$stage" "$@")
  before=${job%%;*}
  echo "$stage $before"
done
