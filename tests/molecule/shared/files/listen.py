#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Takes connections on TCP ports and answers datagrams on UDP ports: listen.py PORT,PORT PORT,PORT"""

import asyncio
import sys


class Echo(asyncio.DatagramProtocol):
    """Sends back what it gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple) -> None:
        self.transport.sendto(data, address)


async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def main() -> None:
    tcp, udp = (map(int, text.split(",")) for text in sys.argv[1:])
    for port in tcp:
        await asyncio.start_server(greet, None, port)
    for port in udp:
        await asyncio.get_running_loop().create_datagram_endpoint(Echo, ("::", port))
    await asyncio.Event().wait()


asyncio.run(main())
