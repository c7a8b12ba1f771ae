"""One file for each command: `add_options(parser)` defines its options, `main(options, console)` runs it."""
