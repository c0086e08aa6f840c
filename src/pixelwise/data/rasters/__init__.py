"""Windows of georeferenced rasters as samples: read when needed, labeled by polygons or rasters."""
