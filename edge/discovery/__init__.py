"""Looks for devices on the network and on serial ports; tells what to configure, and adds nothing by itself."""
