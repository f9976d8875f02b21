"""Videos in, numbers out: readers, networks, RoIAlign. Nothing here knows of stores or stages."""
