#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
"""Prints the walk of a matrix parameter through a step, from the code: the functions that step_matrices and
matrix_update call, in their order, with the files that define them. Stops are the API of the stages, the layout
and the group's policies; orchestrators (optimizer/) are none. Two calls of one policy of which a step makes only one
are one stop. Fails if a file but the layout's occurs twice.

--write puts the list into docs/architecture.md; --check compares it with what stands there.
"""
import argparse
import itertools
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


def conditions(body, position):
    """The terms of the `if`s around a position."""
    opened = []
    for at in re.finditer(r"[{}]", body[:position]):
        opened.append(at.start()) if at.group() == "{" else opened.pop()
    lines = (body[:at].rsplit("\n", 1)[-1] for at in opened)
    return {term for line in lines for term in re.sub(r"^\s*if \((.*)\) $", r"\1", line).split(" && ")}


def calls_of(file, function):
    """The functions called, with the first word of their arguments and their conditions, in their order."""
    body = body_of(re.sub(r"//.*", "", (include / file).read_text()), function)
    return [(*call.groups(), conditions(body, call.start()))
            for call in re.finditer(r"(?<![.>\w])([a-z_]+)\(([a-z_]*)", body)]


def definitions():
    """The API's free functions over tensors, by name."""
    return {function: f"{wing}/{header.name}"
            for wing in ("stages", "parameters") for header in sorted((include / wing).glob("*.hpp"))
            for function in re.findall(r"^(?:inline )?[A-Za-z_:<>& ]+[ &]([a-z_]+)\(", header.read_text(), re.M)}


def excludes(first, second):
    return any("!" + term in second for term in first) or any("!" + term in first for term in second)


def walk():
    defined = definitions()
    stops = []  # [function, file, conditions]

    def follow(file, function):
        for name, argument, when in calls_of(file, function):
            if name == "matrix_update":
                follow("optimizer/detail/matrix_update.hpp", "matrix_update")
            elif name in ("filtered", "applied"):
                which = "orthogonalizer" if argument == "orthogonalizer" else "filter"
                stops.append([which, policies[which], when])
            elif name in defined:
                stops.append([name, defined[name], when])

    follow("optimizer/detail/step_matrices.hpp", "step_matrices")
    stops.append(["Commit::run", "optimizer/detail/commit.hpp", set()])
    # A policy with two places, of which a step has one (the conditions exclude each other), is one stop.
    for first, second in itertools.combinations(list(stops), 2):
        if first[0] == second[0] and first[0] in policies and excludes(first[2], second[2]):
            first[1] += f": here, or before the {stops[stops.index(second) + 1][0]}"
            stops.remove(second)
    merged = []
    for name, file, _ in stops:
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
    twice = {file for file in files if files.count(file) > 1}
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
