"""The service behind a scripted name server: ``python -m benchmarks.named_service serve``.

Names below ``slow.test`` take five seconds to resolve, other names below ``test`` none; all mean
127.0.0.1. Everything else asks the platform. Only the platform's function is replaced.
"""

import socket
import sys
import time
from typing import Any

from app.__main__ import main

SLOW_SECONDS = 5.0

_platform = socket.getaddrinfo


def _resolve(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
    name = host if isinstance(host, str) else ""
    if not name.endswith(".test") or options.get("flags", 0) & socket.AI_NUMERICHOST:
        return _platform(host, port, *arguments, **options)
    if name.endswith(".slow.test"):
        time.sleep(SLOW_SECONDS)
    return _platform("127.0.0.1", port, *arguments, **options)


if __name__ == "__main__":
    socket.getaddrinfo = _resolve
    sys.argv[0] = "myscheduler"
    main()
