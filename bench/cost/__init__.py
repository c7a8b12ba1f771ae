"""What a plan costs: seconds at scale tiny, FLOPs, memory and hours on a GPU."""
