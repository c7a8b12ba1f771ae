"""From a request to rows: where data and weights are, which stages rows need."""
