"""Compiles modules for an image whose files nobody may write.

The paths come on standard input, a line each; the argument is a folder. The compiled form of line n goes to the file n
there, and line n of standard output is the path at which the interpreter looks for it; empty if it does not compile.
The form is valid whatever the time of the source (PEP 552, unchecked hash).
"""

import concurrent.futures
import importlib.util
import os
import py_compile
import sys


def compile_one(task):
    number, path = task
    target = os.path.join(sys.argv[1], str(number))
    try:
        py_compile.compile(path, cfile=target, dfile=path, doraise=True,
                           invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    except (py_compile.PyCompileError, OSError, ValueError):
        return ""
    return importlib.util.cache_from_source(path)


if __name__ == "__main__":
    tasks = list(enumerate(line.rstrip("\n") for line in sys.stdin))
    try:
        with concurrent.futures.ProcessPoolExecutor() as pool:
            places = list(pool.map(compile_one, tasks, chunksize=32))
    except (ImportError, NotImplementedError, OSError):
        # Helpers share semaphores, for which some hosts have no place: then it takes longer.
        places = [compile_one(task) for task in tasks]
    print("\n".join(places))
