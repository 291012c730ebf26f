#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
#
# tools/momentum_spectra.sh CAPTURE_SPECTRA FASHION_MNIST BROWN OUT: the runs that momentum_spectra.csv is made of.
# The file is frozen: other versions of LibTorch and other processors train to other digits, and the run "conv" was
# captured by an earlier version of the program, which drew its images in another order.
set -euo pipefail
capture=$1 images=$2 brown=$3 out=$4
export OMP_NUM_THREADS=1

# Momentum before (U) and behind (B) the published split, which these runs train with.
$capture --out "$out" --name conv --model conv --images "$images" --batch 64 --published-split
for width in 64 128; do
  $capture --out "$out" --name gpt$width --width $width --published-split
done
$capture --out "$out" --name gpt192 --width 192 --published-split --held-out

# As hard as the attention weights of deeper models: deep ones, and images, whose patches are much alike.
$capture --out "$out" --name vit128 --model vit --images "$images" --width 128 --layers 6 --batch 32 --steps 400 \
  --lr 3e-3 --captured 20 100 200
$capture --out "$out" --name vit256 --model vit --images "$images" --width 256 --layers 4 --batch 32 --steps 240 \
  --lr 3e-3 --captured 12 --held-out
$capture --out "$out" --name gpt128deep --text "$brown" --width 128 --layers 12 --batch 32 --context 128 --steps 200 \
  --lr 4e-3 --optimizer muon --captured 10

# As hard as attention weights are late in training: those of images, where AdamW trains.
$capture --out "$out" --name vit128adamw --model vit --images "$images" --width 128 --layers 6 --batch 32 --steps 900 \
  --lr 3e-3 --optimizer adamw --captured 300 899
$capture --out "$out" --name vit192adamw --model vit --images "$images" --width 192 --layers 4 --batch 32 --steps 400 \
  --lr 2e-3 --optimizer adamw --captured 200 399
$capture --out "$out" --name vit256adamw --model vit --images "$images" --width 256 --layers 6 --batch 32 --steps 500 \
  --lr 2e-3 --optimizer adamw --captured 200 499 --held-out
