"""Arrow Flight SQL: questions as statements, answers as Arrow record batches, over gRPC."""
