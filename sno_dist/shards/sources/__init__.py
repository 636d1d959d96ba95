"""Where distributions come from: one file each, and the factory that picks one."""
