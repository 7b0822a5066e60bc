"""Becomes a replica: reads its recipe from a JSON file and replaces itself with the program.

Run by the supervisor as ``python -I -S launch.py FILE``, on its own: nothing of deploykit can be imported here. It
exists so that commands and environment reach the program as data, with no quoting on the way, and nothing of the
environment deploykit was started in goes along. Exit code 127: the program cannot be run.
"""

import json
import os
import sys


def main(path: str) -> int:
    with open(path, encoding="utf-8") as file:
        recipe = json.load(file)["run"]
    command = recipe["command"]
    try:
        os.chdir(recipe["workdir"])
        os.execvpe(command[0], command, recipe["environment"])  # noqa: S606
    except OSError as error:
        print(f"deploykit: {command[0]} cannot be run: {error.strerror}", flush=True)
    return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
