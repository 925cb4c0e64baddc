#!/bin/bash
# Train on one or several nodes without a scheduler: start this on every node, with NODE_RANK 0, 1, ...
#
#   PROCESSES=8 scripts/launch/torchrun.sh --config scripts/configs/community/quickstart.yaml [more options of fit]
#   NODES=2 NODE_RANK=1 MASTER_ADDR=node0 PROCESSES=8 scripts/launch/torchrun.sh --config ...
#
#   NODES        number of nodes (1)
#   NODE_RANK    number of this node, 0 on the first (0)
#   PROCESSES    processes on each node, one a GPU (1)
#   MASTER_ADDR  address of node 0 as the others reach it (localhost)
#   MASTER_PORT  a free port there (29500)
#   ACCELERATOR  gpu or cpu (auto)
#   DRY_RUN      1 prints the command and starts nothing
#
# After a crash add --ckpt_path last to go on. The run directory is written by node 0.
set -euo pipefail

nodes=${NODES:-1}
processes=${PROCESSES:-1}

command=(
  torchrun
  --nnodes "$nodes" --node_rank "${NODE_RANK:-0}" --nproc_per_node "$processes"
  --master_addr "${MASTER_ADDR:-localhost}" --master_port "${MASTER_PORT:-29500}"
  --module theodolite.scripts.main fit "$@"
  --trainer.accelerator "${ACCELERATOR:-auto}" --trainer.strategy ddp
  --trainer.num_nodes "$nodes" --trainer.devices "$processes"
)

if [[ ${DRY_RUN:-0} == 1 ]]; then
  printf '%q ' "${command[@]}"
  echo
  exit 0
fi
exec "${command[@]}"
