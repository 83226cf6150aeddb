"""Times keep-alive requests: latency.py CA HOST PORT COUNT prints the median in microseconds."""

import http.client
import os
import ssl
import statistics
import sys
import time

ca, host, port, count = sys.argv[1:]
connection = http.client.HTTPSConnection(host, int(port), context=ssl.create_default_context(cafile=ca))
headers = {"Authorization": "Bearer " + os.environ["API_KEY"]}
times = []
for number in range(int(count) + int(count) // 4):
    start = time.perf_counter_ns()
    connection.request("GET", "/v1/models", headers=headers)
    response = connection.getresponse()
    response.read()
    times.append(time.perf_counter_ns() - start)
    assert response.status == 200, response.status
print(statistics.median(times[int(count) // 4 :]) / 1000)
