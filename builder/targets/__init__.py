"""The targets of `build`: each turns a checkpoint and limits into an engine folder."""
