# Renders a page with a table of random numbers from a Jinja template.

import datetime
import os
import random
import time

from jinja2 import Environment, FileSystemLoader

TEMPLATES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "templates")


def handler(event):
    begin = time.perf_counter()
    numbers = [random.randrange(1000000) for _ in range(event["random_len"])]
    # Read and compiled in each invocation: that is part of the work which is measured.
    template = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True).get_template("draw.html")
    page = template.render(
        username=event["username"],
        drawn_at=datetime.datetime.now().isoformat(sep=" ", timespec="seconds"),
        numbers=numbers,
    )
    end = time.perf_counter()
    return {"result": page, "measurement": {"compute_time": (end - begin) * 1000000}}
