"""A process of its own that alone may make a loudspeaker speak."""
