"""Reads what `sebs-lite --help` prints, of the program and of each of its commands, into plain lists."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

# Taken by every command, and described in the notes of the program's own help.
COMMON = re.compile(r"^\s+(?:(-\w), )?(--[\w-]+)(?: [A-Z]+)?\s{2,}(.+)$")


def find_program():
    """The program: $SEBS_LITE, else this checkout's, else the one on the path."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).resolve().parent.parent / "target"))
    places = [os.environ.get("SEBS_LITE"), target / "release/sebs-lite", target / "debug/sebs-lite"]
    places.append(shutil.which("sebs-lite"))
    for place in places:
        if place and os.access(place, os.X_OK):
            return str(place)
    sys.exit("there is no `sebs-lite`: run `cargo build --release` first, or say where it is in SEBS_LITE")


class Command:
    """A command and its help: words, usage, summary, options, arguments, commands, examples, notes."""

    def __init__(self, program, words):
        self.words = words
        text = subprocess.run([program, *words, "--help"], check=True, stdout=subprocess.PIPE, text=True).stdout
        head, *sections = re.split(r"\n\n(?=[A-Z][\w ]+:\n)", text.strip())
        usage, _, self.summary = head.partition("\n\n")
        self.usage = usage[len("Usage: "):]
        parts = {section.partition(":\n")[0]: section.partition(":\n")[2] for section in sections}
        self.options = entries(parts.get("Options", ""))
        self.arguments = entries(parts.get("Positional Arguments", ""))
        self.commands = entries(parts.get("Commands", ""))
        self.examples = [line.strip() for line in parts.get("Examples", "").splitlines()]
        self.exit_codes = entries(parts.get("Error codes", ""), separator=" ")
        self.common = [found.groups() for line in parts.get("Notes", "").splitlines() if (found := COMMON.match(line))]
        self.below = [Command(program, [*words, name]) for name, _ in self.commands]


def entries(text, separator="  "):
    """Pairs of a name and what it is, the latter put together where it was broken into lines."""
    found = []
    for line in text.splitlines():
        if re.match(r"^  \S", line):
            name, _, about = line.strip().partition(separator)
            found.append([name.split(",")[0], about.strip()])
        elif found:
            found[-1][1] = (found[-1][1] + " " + line.strip()).strip()
    return [tuple(entry) for entry in found]


def walk(command):
    """The command and all below it."""
    yield command
    for below in command.below:
        yield from walk(below)
