#!/bin/bash
# Train on several nodes under SLURM, one task a GPU; requeued jobs go on where they were stopped.
#
#   sbatch --nodes=4 scripts/launch/slurm.sh --config scripts/configs/community/quickstart.yaml [more options of fit]
#
# Submit from the repository with its environment active. Options of sbatch come before the script and override the
# lines below; add your site's --partition, --account. RUNS_DIR (default: runs) must be on a file system that all nodes
# share. ACCELERATOR=cpu trains without GPUs. DRY_RUN=1 prints the command and starts nothing.
#SBATCH --job-name=theodolite
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output=theodolite-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
set -euo pipefail

job=${SLURM_JOB_ID:?submit this script by sbatch, or set DRY_RUN=1 and the SLURM_ variables to try it}
runs_dir=${RUNS_DIR:-runs}
# A requeued job keeps its id, so its run directory is found again.
run_id=slurm-$job

command=(
  srun --kill-on-bad-exit=1
  theodolite fit "$@"
  --runs_dir "$runs_dir" --run_id "$run_id"
  --trainer.accelerator "${ACCELERATOR:-gpu}" --trainer.strategy ddp
  --trainer.num_nodes "$SLURM_JOB_NUM_NODES" --trainer.devices "$SLURM_NTASKS_PER_NODE"
)
if compgen -G "$runs_dir/*/$run_id/checkpoints" > /dev/null; then
  command+=(--ckpt_path last)
fi

if [[ ${DRY_RUN:-0} == 1 ]]; then
  printf '%q ' "${command[@]}"
  echo
  exit 0
fi

# Two minutes before the time limit SLURM signals this shell alone: queue again. The last checkpoint is never older than
# an epoch, and a resumed run equals an uninterrupted one.
trap 'scontrol requeue "$job"' USR1
"${command[@]}" &
pid=$!
# `wait` returns early when the signal comes; what counts is how the run ended.
while true; do
  code=0
  wait "$pid" || code=$?
  kill -0 "$pid" 2> /dev/null || exit "$code"
done
