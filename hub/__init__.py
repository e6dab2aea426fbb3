"""The server people sign in to: it stores what hamlets report and asks them to speak."""
