"""Hardware we do not have, speaking its real protocol; nothing here knows the product it is tested with."""
