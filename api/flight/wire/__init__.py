"""The messages of Flight and Flight SQL; the `_pb2` modules are generated: make messages."""
