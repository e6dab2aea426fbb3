"""Every message's path through the hub, top to bottom: decode, validate, live state, commit, acknowledge."""
