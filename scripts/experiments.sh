#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

usage() {
  cat << END
Usage: scripts/experiments.sh NAME... [--quick] [--data DIR] [--jobs N] [--publish]

Sets up what is missing, builds the program that does a training run, and runs experiments: tables,
and build/experiments/NAME/{runs.csv,curves.csv,summary.csv,report.md,*.png}; learning_rates has no
curves.csv.

  learning_rates  the rate of each optimizer, from the same grid and on a seed of its own; the
                  others use what it finds (or what docs/results has)
  lm              final validation loss, and steps and seconds to AdamW's final loss
  ablation        what the outlier split and the orthogonalization contribute
  quantile        the quantile of the split, on language and images
  noise           heavy-tailed gradients, spikes, spoiled labels
  vision          a vision transformer and a residual network
  precision_along_training
                  relative error to the exact polar factor of real momentum
  tails           how the entries of momentum are distributed
  cost            the optimizer's share of a step, and loss against wall-clock; with the runs of lm
  tuning          the settings of each competitor, from as many candidates on clean text
  momentum        how low and how long the momentum of ROOT should be, at 600 and at 3,000 steps
  parts           what the split, the orthogonalization and the balance add on clean text
  competitors     Muon, Muon with another or a rising momentum, AdamW with tuned clipping, and ROOT with
                  its options, with the settings of tuning, at 600 steps; hours
  long            the same at 3,000 steps; hours
  guards          the same under noise: spoiled batches, spikes, heavy tails, a rank that sends noise
  others          the rate and β₂ of parameters that are no matrices, and weight decay, plain or cautious
  ranks           the split of each rank's gradients before their mean, under heavy tails of each rank's own
  transfer        loss against rate at widths 64 to 256: does the best rate stay where it is
  finetune_rates  the rate of each optimizer for what follows
  finetune        a model trained on Brown that goes on with Shakespeare, all of it or low-rank adapters, from
                  weights that AdamW or the optimizer itself has trained
  all             all of them, one after the other

  --quick         all of it small enough for minutes: does it work, not what comes out;
                  into build/experiments/quick
  --data DIR      a folder with brown.txt and tinyshakespeare.txt (else the LibTorch headers are the
                  text), and with CIFAR-10's binary version or Fashion-MNIST in it or in a folder
                  below (else build/data/cifar10, else no images). Default: \$ROOT_OPTIM_DATA
  --jobs N        N runs, one thread each, at a time (default: one per core)
  --publish       copy the results to docs/results/NAME; not with --quick

An experiment takes up to an hour on two cores. When it is interrupted, the same command goes on
from the last finished run; to start anew, delete build/experiments. Runs whose time is reported are done
alone with all threads: leave the machine idle meanwhile.
Needs what scripts/demo.sh needs.
END
}

arguments=()
while (($#)); do
  case $1 in
    --help | -h) usage; exit ;;
    *) arguments+=("$1") ;;
  esac
  shift
done
((${#arguments[@]})) || die "expected the name of an experiment; see --help"

phase "Set-up"
set_up_build CLI11
set_up_plotting

phase "Building"
configure release
cmake --build "$project/build/release" --parallel "$jobs" --target experiment ||
  die "the build failed"

phase "Running"
"$plot_python" "$project/experiments/experiments.py" \
  --program "$project/build/release/experiments/experiment" "${arguments[@]}"
end_phase

say "What took the time"
print_phases
