"""Ground floor: errors, registry, geometry, files. Imports nothing else of the project."""
