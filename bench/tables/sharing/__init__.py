"""Results and reports in a data set of the Hugging Face hub: what is shared, its card, and the exchange."""
