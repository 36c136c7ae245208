"""The server: pages to try, review and run, and an API for programs."""
