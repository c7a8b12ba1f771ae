"""One file for each command: add_options(parser) and main(options, console)."""
