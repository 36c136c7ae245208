"""What each command takes: options, their types, ranges, defaults and help."""
