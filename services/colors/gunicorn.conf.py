"""One worker with threads: it starts fast, and one replica has one set of faults and counters."""

import os
import threading

bind = f"{os.environ.get('HOST') or '0.0.0.0'}:{os.environ.get('PORT') or '8000'}"
worker_class = "gthread"
workers = 1
threads = 32
keepalive = 75  # seconds; longer than nginx keeps an idle connection, so that nginx closes it first
graceful_timeout = 65  # seconds; the longest /delay finishes
control_socket_disable = True
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
proc_name = "colors"


def post_worker_init(worker):
    """SIGTERM first drains: /readyz says 503 while requests that still come are answered; then gunicorn stops."""
    import signal

    from app import traffic

    def drain():
        traffic.drain()
        worker.handle_exit(signal.SIGTERM, None)

    def on_term(number, frame):
        if not traffic.draining:
            traffic.draining = True
            worker.cfg.set("keepalive", 0)  # every further answer says `Connection: close`
            threading.Thread(target=drain, daemon=True).start()

    signal.signal(signal.SIGTERM, on_term)
