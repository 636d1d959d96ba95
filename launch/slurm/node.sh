#!/usr/bin/env bash
# One node's task in a job of stage.sbatch: HOST PORT WORDS... for `sno-dist WORDS...`.
# Ends with 75 if it was asked to stop before the ranks were done, else with the launcher's code.
set -uo pipefail

host=$1
port=$2
shift 2
ranks=${RANKS_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}

# Another engine: its file, and further words for the launcher.
file=${ACCELERATE_CONFIG:-launch/accelerate/n_nodes.yaml}
read -ra options <<<"${ACCELERATE_OPTIONS-}"

# What the launcher hands on to its ranks, and for how long it then waits before it kills them.
export PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR2
export PET_SHUTDOWN_TIMEOUT=280

accelerate launch --config_file "$file" ${options[@]+"${options[@]}"} \
  --num_machines "$SLURM_NNODES" --machine_rank "$SLURM_NODEID" \
  --num_processes $((SLURM_NNODES * ranks)) \
  --main_process_ip "$host" --main_process_port "$port" \
  -m sno_dist "$@" &
launcher=$!

# Most clusters (proctrack/cgroup) signal this shell alone, others all that runs below it; so the
# launcher hears twice at most. It stands that; a third signal would cut the saving short.
asked=no
trap 'asked=yes; trap "" TERM USR2; kill -TERM "$launcher" 2>/dev/null' TERM USR2

wait "$launcher"
code=$?
# USR2 may end a launcher that does not handle it before this shell has heard it too.
((code == 128 + 12)) && asked=yes
if [[ $asked == yes ]]; then
  # The signal ended the first waiting, not the launcher.
  wait "$launcher"
  code=$?
  ((code == 0)) || code=75
fi
exit "$code"
