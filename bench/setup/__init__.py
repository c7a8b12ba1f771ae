"""From a request to rows: request, rows, the places of data and weights, downloads, and the rehearsal."""
