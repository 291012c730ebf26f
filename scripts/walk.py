#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
"""Prints the walk of a matrix parameter through a step, from the code: the functions that step_matrices and
matrix_update call, in their order, with the files that define them. Stops are the API of the stages, the layout
and the group's policies; orchestrators (optimizer/) are none. Fails if a file but the layout's occurs twice.

--write puts the list into docs/architecture.md; --check compares it with what stands there.
"""
import argparse
import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parent.parent
include = root / "include/root_optim"
policies = {"filter": "filters/ (the group's policy)", "orthogonalizer": "orthogonalizers/ (the group's policy)"}


def body_of(text, function):
    """From the signature of a function at namespace scope to its closing brace."""
    start = re.search(rf"^[A-Za-z].*\b{function}\((?:[^;{{]|\{{\}})*\{{$", text, re.M)
    return text[start.end():text.index("\n}\n", start.end())]


def calls_of(file, function):
    """The functions called, with the first word of their arguments, in their order."""
    body = body_of(re.sub(r"//.*", "", (include / file).read_text()), function)
    return re.findall(r"(?<![.>\w])([a-z_]+)\(([a-z_]*)", body)


def definitions():
    """The API's free functions over tensors, by name."""
    return {function: f"{wing}/{header.name}"
            for wing in ("stages", "parameters") for header in sorted((include / wing).glob("*.hpp"))
            for function in re.findall(r"^(?:inline )?[A-Za-z_:<>& ]+[ &]([a-z_]+)\(", header.read_text(), re.M)}


def walk():
    defined = definitions()
    stops = []

    def follow(file, function):
        for name, argument in calls_of(file, function):
            if name == "matrix_update":
                follow("optimizer/detail/matrix_update.hpp", "matrix_update")
            elif name in ("filtered", "applied"):
                which = "orthogonalizer" if argument == "orthogonalizer" else "filter"
                stops.append((which, policies[which]))
            elif name in defined:
                stops.append((name, defined[name]))

    follow("optimizer/detail/step_matrices.hpp", "step_matrices")
    stops.append(("Commit::run", "optimizer/detail/commit.hpp"))
    merged = []
    for name, file in stops:
        if merged and merged[-1][1] == file:
            if name not in merged[-1][0]:
                merged[-1][0].append(name)
        else:
            merged.append(([name], file))
    return merged


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    stops = walk()
    text = "".join(f"{', '.join(names):<32} {file}\n" for names, file in stops)
    print(text, end="")

    files = [file for _, file in stops if file != "parameters/layout.hpp"]
    # The published place of the filter is behind the momentum: the same stop, elsewhere.
    twice = {f for f in files if files.count(f) > 1} - {policies["filter"]}
    if twice:
        sys.exit("occurs twice: " + ", ".join(sorted(twice)))
    page = root / "docs/architecture.md"
    old = page.read_text()
    new = re.sub(r"(<!-- walk: begin[^\n]*\n).*?(<!-- walk: end -->)",
                 lambda m: m.group(1) + "```\n" + text + "```\n" + m.group(2), old, flags=re.S)
    if arguments.write:
        page.write_text(new)
    elif arguments.check and new != old:
        sys.exit("docs/architecture.md shows another walk: run scripts/walk.py --write")


if __name__ == "__main__":
    main()
