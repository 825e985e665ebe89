"""How the maps of MHR's surface are made."""
