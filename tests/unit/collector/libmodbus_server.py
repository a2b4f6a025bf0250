# SPDX-License-Identifier: Apache-2.0
"""A Modbus server that shares no code with us: Debian's libmodbus5, by ctypes.

    python libmodbus_server.py tcp PORT
    python libmodbus_server.py rtu DEVICE UNIT

Holding register n holds 1000 + n, input register n 2000 + n, coil and discrete input n are on where n divides by
three. There are 200 of each; asking for more brings exception 02.
"""

from __future__ import annotations

import ctypes
import sys

COUNT = 200


class Mapping(ctypes.Structure):
    """modbus_mapping_t of modbus.h."""

    _fields_ = (
        ("nb_bits", ctypes.c_int),
        ("start_bits", ctypes.c_int),
        ("nb_input_bits", ctypes.c_int),
        ("start_input_bits", ctypes.c_int),
        ("nb_input_registers", ctypes.c_int),
        ("start_input_registers", ctypes.c_int),
        ("nb_registers", ctypes.c_int),
        ("start_registers", ctypes.c_int),
        ("tab_bits", ctypes.POINTER(ctypes.c_uint8)),
        ("tab_input_bits", ctypes.POINTER(ctypes.c_uint8)),
        ("tab_input_registers", ctypes.POINTER(ctypes.c_uint16)),
        ("tab_registers", ctypes.POINTER(ctypes.c_uint16)),
    )


def load() -> ctypes.CDLL:
    """The library, with the types of what is called."""
    library = ctypes.CDLL("libmodbus.so.5", use_errno=True)
    library.modbus_new_tcp.restype = ctypes.c_void_p
    library.modbus_new_tcp.argtypes = [ctypes.c_char_p, ctypes.c_int]
    library.modbus_new_rtu.restype = ctypes.c_void_p
    library.modbus_new_rtu.argtypes = [
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char,
        ctypes.c_int,
        ctypes.c_int,
    ]
    library.modbus_mapping_new.restype = ctypes.POINTER(Mapping)
    library.modbus_tcp_listen.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.modbus_tcp_accept.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_int)]
    library.modbus_set_slave.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.modbus_connect.argtypes = [ctypes.c_void_p]
    library.modbus_receive.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.modbus_reply.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(Mapping)]
    return library


def serve(library: ctypes.CDLL, context: int, mapping: ctypes._Pointer[Mapping]) -> None:
    """Answer until the other end has gone."""
    query = ctypes.create_string_buffer(260)
    while (length := library.modbus_receive(context, query)) >= 0:
        # 0 is a request for another unit on the same line.
        if length:
            library.modbus_reply(context, query, length, mapping)


def main() -> int:
    kind, where = sys.argv[1:3]
    library = load()
    mapping = library.modbus_mapping_new(COUNT, COUNT, COUNT, COUNT)
    for index in range(COUNT):
        mapping.contents.tab_registers[index] = 1000 + index
        mapping.contents.tab_input_registers[index] = 2000 + index
        mapping.contents.tab_bits[index] = mapping.contents.tab_input_bits[index] = index % 3 == 0
    if kind == "rtu":
        context = library.modbus_new_rtu(where.encode(), 19200, b"E", 8, 1)
        library.modbus_set_slave(context, int(sys.argv[3]))
        if library.modbus_connect(context) < 0:
            raise OSError(ctypes.get_errno(), f"{where} cannot be opened")
        print("ready", flush=True)
        while True:
            serve(library, context, mapping)
    context = library.modbus_new_tcp(b"127.0.0.1", int(where))
    listener = ctypes.c_int(library.modbus_tcp_listen(context, 1))
    print("ready", flush=True)
    while library.modbus_tcp_accept(context, ctypes.byref(listener)) >= 0:
        serve(library, context, mapping)
    return 1


if __name__ == "__main__":
    sys.exit(main())
