"""Everything that fills the warehouse: ingestion, the pipeline, publications."""
