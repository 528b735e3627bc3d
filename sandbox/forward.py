"""``forward.py PORT:HOST ... -- COMMAND``: lets COMMAND reach the stand-ins of another container on its own loopback.

The pipeline speaks plain HTTP with loopback hosts only, and the stand-ins have no certificates.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def serve(places: list[str]) -> None:
    for place in places:
        port, _, host = place.partition(":")

        async def forward(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str = host, port: int = int(port)
        ) -> None:
            try:
                there, back = await asyncio.open_connection(host, port)
            except OSError:
                writer.close()
                return
            await asyncio.gather(copy(reader, back), copy(there, writer))

        await asyncio.start_server(forward, "127.0.0.1", int(port))
    await asyncio.Event().wait()


if __name__ == "__main__":
    at = sys.argv.index("--")
    if os.fork():
        os.execvp(sys.argv[at + 1], sys.argv[at + 1 :])  # noqa: S606  what the container is told to run
    asyncio.run(serve(sys.argv[1:at]))
