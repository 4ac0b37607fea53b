"""The main job: a search over configurations, every trial tracked, one honest table at the end."""
