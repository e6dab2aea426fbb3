"""Simulated road cameras: ONVIF for management and events, RTSP and snapshots for the picture."""
