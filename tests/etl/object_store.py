"""A real server of the S3 protocol, and its address and credentials in the environment."""

import logging
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import s3fs
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

KEY, SECRET = "the-user-of-the-bucket", "a-secret-that-is-never-written"


class Store:
    """A server of the S3 protocol on this machine, and how many bytes it has sent."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._application = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.bytes_sent = 0
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _answer(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        for piece in self._application(environ, start_response):
            self.bytes_sent += len(piece)
            yield piece

    def accept_known_keys_only(self, is_so: bool) -> None:
        """From now on a request needs the key of a user that exists; there is none."""
        data = b"0" if is_so else b"inf"
        request = urllib.request.Request(f"{self.url}/moto-api/reset-auth", data, {"Content-Type": "text/plain"})
        urllib.request.urlopen(request).close()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def running() -> Iterator[Store]:
    """The server, with credentials in this process's environment, and so in that of what it starts."""
    started = Store()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", KEY)
        environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        environment.setenv("AWS_ENDPOINT_URL", started.url)
        environment.setenv("AWS_MAX_ATTEMPTS", "1")
        yield started
    s3fs.S3FileSystem.clear_instance_cache()
    started.close()
