"""The semantic layer over GraphQL: the surface of the dbt Semantic Layer, and our additions."""
