"""To try things: shaped links, real processes, the stage of the demo."""
