"""Programs that speak to the service over its API, as anybody else would."""
