"""What notebooks show of outcomes, leaderboards and suites: HTML without scripts or colours.

Each value imports its display when it is shown, so that nothing here is needed to compute.
"""
