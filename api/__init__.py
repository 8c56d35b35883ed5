"""The semantic layer as a service: one door, several transports."""
