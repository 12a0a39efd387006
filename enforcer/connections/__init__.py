"""Open connections: which of them a change forbids, and how they end."""
