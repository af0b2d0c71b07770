"""What is seen of an edge or a server while it runs: its last minute in numbers, and a page."""
