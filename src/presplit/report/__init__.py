"""What a user looks at after a run.

There are plain tables, plots and one HTML page that needs nothing from the network.
"""
