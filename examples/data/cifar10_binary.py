#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
"""Turns CIFAR-10 kept as an archive of JPEG files into its official binary version.

Usage: cifar10_binary.py ARCHIVE LABELS DIR

ARCHIVE   a tar of train|test/<class>/NNNN.jpg, where NNNN is the n-th image of that class in the
          official order
LABELS    60,000 labels in the official order, one byte each: 50,000 to train on, 10,000 to test with
DIR       where data_batch_1.bin ... data_batch_5.bin and test_batch.bin go

The pixels are those of the JPEG files, not the original ones. Needs Pillow and numpy.
"""
import io
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PER_FILE = 10_000
FILES = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]


def read_archive(path):
    """{(part, label, n): 3 x 32 x 32 bytes, channel by channel} of all images."""
    images = {}
    with tarfile.open(path) as archive:
        for member in archive:
            if not member.isfile():
                continue
            part, name, file = Path(member.name).parts[-3:]
            with Image.open(io.BytesIO(archive.extractfile(member).read())) as image:
                pixels = np.asarray(image.convert("RGB"))
            if pixels.shape != (32, 32, 3):
                sys.exit(f"{member.name}: expected 32 x 32 pixels, got {pixels.shape}")
            key = part, CLASSES.index(name), int(Path(file).stem)
            images[key] = pixels.transpose(2, 0, 1).tobytes()
    return images


def main():
    if len(sys.argv) != 4 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    archive, labels_path, directory = map(Path, sys.argv[1:])
    labels = labels_path.read_bytes()
    if len(labels) != PER_FILE * len(FILES) or max(labels) >= len(CLASSES):
        sys.exit(f"{labels_path}: expected {PER_FILE * len(FILES)} labels from 0 to 9")
    images = read_archive(archive)
    if len(images) != len(labels):
        sys.exit(f"{archive}: expected {len(labels)} images, got {len(images)}")

    directory.mkdir(parents=True, exist_ok=True)
    seen = {}
    for index, name in enumerate(FILES):
        part = "test" if name.startswith("test") else "train"
        with open(directory / name, "wb") as file:
            for label in labels[index * PER_FILE:(index + 1) * PER_FILE]:
                number = seen.get((part, label), 0)
                seen[part, label] = number + 1
                try:
                    pixels = images.pop((part, label, number))
                except KeyError:
                    sys.exit(f"{archive}: expected {part}/{CLASSES[label]}/{number:04}.jpg, got none")
                file.write(bytes([label]) + pixels)
    print(f"{len(labels)} images in {directory}: " +
          ", ".join(f"{CLASSES[label]} {seen['train', label]} + {seen['test', label]}"
                    for label in range(len(CLASSES))))


if __name__ == "__main__":
    main()
