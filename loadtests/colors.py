"""People looking at services/colors. Run it with Locust itself or with deploykit:

locust -f loadtests/colors.py --headless -H http://127.0.0.1:8080 -u 10 -t 5s
deploykit load http://127.0.0.1:8080 --locustfile loadtests/colors.py --users 10 --duration 5s
"""

from locust import FastHttpUser, between, task


class Visitor(FastHttpUser):
    """Looks at the page, rests a little, looks again."""

    wait_time = between(0.05, 0.2)

    @task
    def page(self) -> None:
        self.client.get("/")
