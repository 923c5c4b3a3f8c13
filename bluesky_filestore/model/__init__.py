"""What documents of a run mean: paths, specs, order, frames. Pure: no file, no server, no device."""
