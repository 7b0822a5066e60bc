"""People being greeted by name. Run it with Locust itself or with deploykit:

locust -f loadtests/greeter.py --headless -H http://127.0.0.1:8080 -u 10 -t 5s
deploykit load http://127.0.0.1:8080 --locustfile loadtests/greeter.py --users 10 --duration 5s
"""

import itertools

from locust import FastHttpUser, constant_pacing, task

NAMES = itertools.cycle(("Ada", "Grace", "Linus", "Margaret"))


class Guest(FastHttpUser):
    """Asks five times a second, with a name more often than without; all names count as one line in the statistics."""

    wait_time = constant_pacing(0.2)

    @task(3)
    def by_name(self) -> None:
        self.client.get(f"/?name={next(NAMES)}", name="/?name=NAME")

    @task(1)
    def without_name(self) -> None:
        self.client.get("/")
