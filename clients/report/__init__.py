"""One page about a period, whose every number comes from a request that it lists."""
