# Sleeps for as many seconds as the event says, which shows what an invocation costs without any work.

import time


def handler(event):
    seconds = event["sleep"]
    begin = time.perf_counter()
    time.sleep(seconds)
    end = time.perf_counter()
    return {"result": seconds, "measurement": {"compute_time": (end - begin) * 1000000}}
