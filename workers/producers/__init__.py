"""What brings events: polled APIs, replayed files, the shop's webhooks. Each makes messages of `workers.messages`."""
