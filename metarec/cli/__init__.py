"""The commands: options, tables in the terminal, and exit codes."""
